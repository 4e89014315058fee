import type { Random } from "../../src/core/backoff.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { isNotFound } from "../../src/kube/errors.ts";
import type { ConfigMap, KubeObject, Pod, Secret } from "../../src/kube/objects.ts";
import { CONFIG_MAPS, type Resource, SECRETS } from "../../src/kube/resource.ts";
import { EnvironmentError, type ReferencedObjects, type References } from "./environment.ts";

export interface ObjectReaderOptions {
  readonly client: KubeClient;
  readonly random: Random;
  /** The share of reads, 0 to 1, that return what the previous read saw. */
  readonly staleReads: number;
}

/**
 * Reads the Secrets and ConfigMaps of Pods when they start. A kubelet watches each of them, but this reader requests
 * them at every look. The result is the same, except that a kubelet's watch may lag behind its watch of Pods.
 * `staleReads` simulates that.
 */
export class ObjectReader {
  readonly #options: ObjectReaderOptions;
  /** What was last seen, by Pod. A kubelet that can't reach the API server continues with what it has. */
  readonly #seen = new Map<string, Map<string, KubeObject | undefined>>();
  /** The number of requests sent. */
  reads = 0;

  constructor(options: ObjectReaderOptions) {
    this.#options = options;
  }

  /** Throws an EnvironmentError if an object can't be read and was never read before. */
  async read(pod: Pod, { secrets, configMaps }: References): Promise<ReferencedObjects> {
    const found = new Map<string, KubeObject | undefined>();
    const fetch = async (resource: Resource, name: string) => {
      found.set(`${resource.plural}/${name}`, await this.#get(pod, resource, name));
    };
    await Promise.all([
      ...secrets.map((name) => fetch(SECRETS, name)),
      ...configMaps.map((name) => fetch(CONFIG_MAPS, name)),
    ]);
    return {
      secret: (name) => found.get(`secrets/${name}`) as Secret | undefined,
      configMap: (name) => found.get(`configmaps/${name}`) as ConfigMap | undefined,
    };
  }

  forget(pod: Pod): void {
    this.#seen.delete(pod.metadata.uid ?? "");
  }

  async #get(pod: Pod, resource: Resource, name: string): Promise<KubeObject | undefined> {
    const { namespace, uid = "" } = pod.metadata;
    const seen = this.#seen.get(uid) ?? new Map<string, KubeObject | undefined>();
    this.#seen.set(uid, seen);
    const key = `${resource.plural}/${name}`;
    const { client, random, staleReads } = this.#options;
    if (seen.has(key) && random() < staleReads) return seen.get(key);
    this.reads += 1;
    try {
      const object = await client.get(resource, { namespace, name });
      seen.set(key, object);
    } catch (error) {
      if (isNotFound(error)) seen.set(key, undefined);
      else if (!seen.has(key)) {
        throw new EnvironmentError(
          `failed to sync ${resource.kind.toLowerCase()} cache: timed out waiting for the condition`,
        );
      }
    }
    return seen.get(key);
  }
}
