import type { Random } from "../../src/core/backoff.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { isNotFound } from "../../src/kube/errors.ts";
import type { ConfigMap, KubeObject, Pod, Secret } from "../../src/kube/objects.ts";
import { CONFIG_MAPS, type Resource, SECRETS } from "../../src/kube/resource.ts";
import { EnvironmentError, type ReferencedObjects, type References } from "./environment.ts";

export interface ObjectReaderOptions {
  readonly client: KubeClient;
  readonly random: Random;
  /** Share of reads, 0 to 1, that answer with what the read before saw. */
  readonly staleReads: number;
}

/**
 * Reads the Secrets and ConfigMaps of Pods as they are started. A kubelet keeps a watch for each of them; this one asks
 * at every look, which shows the same, but for one thing: a kubelet's watch may be behind its watch of Pods.
 * `staleReads` plays that.
 */
export class ObjectReader {
  readonly #options: ObjectReaderOptions;
  /** What was seen last, by Pod: a kubelet that cannot reach the API server goes on with what it has. */
  readonly #seen = new Map<string, Map<string, KubeObject | undefined>>();
  /** Requests sent. */
  reads = 0;

  constructor(options: ObjectReaderOptions) {
    this.#options = options;
  }

  /** Throws an EnvironmentError when something could not be read and was never read before. */
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
