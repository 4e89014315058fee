import { LABEL_ENVIRONMENT, LABEL_ROLE } from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import { DEPLOYMENTS, type Deployment, type KubeObject, PODS, type Pod } from "../kube/resource.ts";
import { cachedPod } from "../pods/cached-pod.ts";
import { CACHE_PATIENCE_MS } from "../reconcile/cache-lag.ts";
import { Informer, type InformerOptions } from "../watch/informer.ts";
import type { ObjectCache, WorkersCaches } from "../workers/context.ts";

/** Objects by `environmentOf`. */
export const INDEX_ENVIRONMENT = "environment";

/** The caches of one namespace, or of all namespaces. */
interface Caches {
  /** Undefined: all namespaces. */
  readonly namespace: string | undefined;
  readonly pods: Informer<Pod>;
  readonly deployments: Informer<Deployment>;
  /** Resolves when both are newer than the last `renew`. */
  fresh: Promise<unknown>;
}

/**
 * Caches of the worker Pods and Deployments of all Environments. Only workers wait for them, so an operator without
 * permission to read Deployments can still serve sessions.
 */
export class WorkerCaches {
  readonly #caches: readonly Caches[];

  /** @param perNamespace makes one cache of each kind, or one for each served namespace */
  constructor(
    common: Pick<InformerOptions<KubeObject>, "client" | "clock" | "random" | "logger" | "metrics">,
    perNamespace: <T>(make: (namespace: string | undefined) => T) => T[],
  ) {
    const options = { labelSelector: `${LABEL_ROLE}=worker`, indexes: { [INDEX_ENVIRONMENT]: environmentOf } };
    this.#caches = perNamespace((namespace) => ({
      namespace,
      pods: new Informer<Pod>({ ...common, ...options, namespace, resource: PODS, transform: cachedPod }),
      deployments: new Informer<Deployment>({ ...common, ...options, namespace, resource: DEPLOYMENTS }),
      fresh: Promise.resolve(),
    }));
  }

  /** Runs until the signal aborts. Never rejects. `onChange` gets the Environment's key and the object's name. */
  async run(signal: AbortSignal, onChange: (key: string, name: string) => void): Promise<void> {
    const notify = ({ object }: { readonly object: KubeObject }) => {
      for (const key of environmentOf(object)) onChange(key, object.metadata.name ?? "");
    };
    const running = this.#caches.flatMap(({ pods, deployments }) => {
      pods.subscribe(notify);
      deployments.subscribe(notify);
      return [pods.run(signal), deployments.run(signal)];
    });
    await Promise.all(running);
  }

  /** Terms that start after this call wait for lists that are newer than it. */
  renew(): void {
    for (const each of this.#caches) each.fresh = Promise.all([each.pods.relist(), each.deployments.relist()]);
  }

  /**
   * The caches of one Environment, by its label. The reader checks the owner. Other namespaces don't affect it.
   * @throws TypeError for a namespace that is not served
   */
  of({ namespace, name }: { readonly namespace: string; readonly name: string }): WorkersCaches {
    const key = `${namespace}/${name}`;
    const caches = this.#caches.find((each) => each.namespace === undefined || each.namespace === namespace);
    if (!caches) throw new TypeError(`namespace ${namespace} is not served`);
    const { pods, deployments, fresh } = caches;
    return {
      pods: cacheOf(pods, namespace, key),
      deployments: cacheOf(deployments, namespace, key),
      synced: fresh.then(() => {}),
      problem: () => {
        const isLate = ({ hasSynced, behindMs }: Pick<Informer<Pod>, "hasSynced" | "behindMs">) =>
          !hasSynced || behindMs >= CACHE_PATIENCE_MS;
        const failing = [pods, deployments].find((each) => isLate(each) && each.lastError !== undefined);
        return failing ? errorText(failing.lastError) : null;
      },
    };
  }
}

function cacheOf<T extends KubeObject>(informer: Informer<T>, namespace: string, key: string): ObjectCache<T> {
  return { get: (name) => informer.get(namespace, name), list: () => informer.byIndex(INDEX_ENVIRONMENT, key) };
}

/**
 * The key of the Environment that an object belongs to, by its label; empty: it has none. The label holds the full name,
 * because the schema limits Environment names to 46 characters.
 */
export function environmentOf({ metadata }: KubeObject): string[] {
  const name = metadata.labels?.[LABEL_ENVIRONMENT];
  return name === undefined ? [] : [`${metadata.namespace}/${name}`];
}
