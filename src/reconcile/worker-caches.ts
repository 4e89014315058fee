import { LABEL_ENVIRONMENT, LABEL_ROLE } from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import { Informer, type InformerOptions } from "../kube/informer.ts";
import { DEPLOYMENTS, type Deployment, type KubeObject, PODS, type Pod } from "../kube/resource.ts";
import type { ObjectCache } from "../workers/context.ts";

const INDEX_ENVIRONMENT = "environment";

/** What the caches have of one Environment's workers. */
export interface WorkersCaches {
  readonly pods: ObjectCache<Pod>;
  readonly deployments: ObjectCache<Deployment>;
  /** Resolves when both show what there was at the start. */
  readonly synced: Promise<void>;
  /** What keeps them from being filled; null: nothing. */
  readonly problem: () => string | null;
}

/**
 * Caches of the worker Pods and Deployments of all Environments. Nobody but workers waits for them: an operator that may not
 * read Deployments serves sessions all the same.
 */
export class WorkerCaches {
  readonly #pods: readonly Informer<Pod>[];
  readonly #deployments: readonly Informer<Deployment>[];
  #fresh: Promise<unknown> = Promise.resolve();

  /** @param perNamespace makes one of each kind, or one for each namespace that is served. */
  constructor(
    common: Pick<InformerOptions<KubeObject>, "client" | "clock" | "random" | "logger" | "metrics">,
    perNamespace: <T>(make: (namespace: string | undefined) => T) => T[],
  ) {
    const options = { labelSelector: `${LABEL_ROLE}=worker`, indexes: { [INDEX_ENVIRONMENT]: environmentOf } };
    this.#pods = perNamespace((namespace) => new Informer<Pod>({ ...common, ...options, namespace, resource: PODS }));
    this.#deployments = perNamespace(
      (namespace) => new Informer<Deployment>({ ...common, ...options, namespace, resource: DEPLOYMENTS }),
    );
  }

  /** Runs until the signal aborts. Never rejects. `onChange` is told the Environment's key and the object's name. */
  async run(signal: AbortSignal, onChange: (key: string, name: string) => void): Promise<void> {
    const tell = ({ object }: { readonly object: KubeObject }) => {
      for (const key of environmentOf(object)) onChange(key, object.metadata.name ?? "");
    };
    for (const informer of this.#pods) informer.subscribe(tell);
    for (const informer of this.#deployments) informer.subscribe(tell);
    await Promise.all(this.#informers.map((informer) => informer.run(signal)));
  }

  /** Who begins to serve from here on waits for lists that are newer than this call. */
  renew(): void {
    this.#fresh = Promise.all(this.#informers.map((informer) => informer.relist()));
  }

  /** Those of one Environment, by its label: whose they are is for the reader to see. */
  of({ namespace, name }: { readonly namespace: string; readonly name: string }): WorkersCaches {
    const key = `${namespace}/${name}`;
    const cacheOf = <T extends KubeObject>(informers: readonly Informer<T>[]): ObjectCache<T> => ({
      get: (object) =>
        informers.map((informer) => informer.get(namespace, object)).find((found) => found !== undefined),
      list: () => informers.flatMap((informer) => informer.byIndex(INDEX_ENVIRONMENT, key)),
    });
    return {
      pods: cacheOf(this.#pods),
      deployments: cacheOf(this.#deployments),
      synced: this.#fresh.then(() => {}),
      problem: () => this.#problem(),
    };
  }

  get #informers(): readonly (Informer<Pod> | Informer<Deployment>)[] {
    return [...this.#pods, ...this.#deployments];
  }

  #problem(): string | null {
    const failing = this.#informers.find(({ hasSynced, lastError }) => !hasSynced && lastError !== undefined);
    return failing ? errorText(failing.lastError) : null;
  }
}

function environmentOf({ metadata }: KubeObject): string[] {
  const name = metadata.labels?.[LABEL_ENVIRONMENT];
  return name === undefined ? [] : [`${metadata.namespace}/${name}`];
}
