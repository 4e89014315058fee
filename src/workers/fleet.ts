import { ANNOTATION_NEEDS, LABEL_ENVIRONMENT, LABEL_ROLE, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import { allowsAll, needWords, readNeeds } from "../api/pod-policy.ts";
import type { PointDetails } from "../core/points.ts";
import { isNotFound } from "../kube/errors.ts";
import { DEPLOYMENTS, type Deployment, PODS } from "../kube/resource.ts";
import type { WorkersContext, WorkersPoint } from "./context.ts";
import { isOwnedBy, readWorkerPod, type WorkerPod } from "./worker-pod.ts";

/** A write that the cache has not shown by then is not waited for: the object may be gone again. */
const LAG_MS = 30_000;

/**
 * The Deployments of one Environment and their Pods: what the caches show, with what was written last on top, so that a
 * cache that lags does not make a decision be taken twice.
 */
export class Fleet {
  readonly #context: WorkersContext;
  /** The last answers of the API server, by name, until the cache shows as much. */
  readonly #written = new Map<string, { readonly deployment: Deployment; readonly atMs: number }>();
  /** Generation of each Deployment's spec as this process wrote it, by uid: another one is somebody else's doing. */
  readonly #generations = new Map<string, number>();

  constructor(context: WorkersContext) {
    this.#context = context;
  }

  /** All of this Environment's, those that are being deleted too. */
  get all(): readonly Deployment[] {
    const { deployments, uid, clock } = this.#context;
    const byName = new Map(deployments.list().map((each) => [each.metadata.name ?? "", each]));
    for (const [name, { deployment, atMs }] of this.#written) {
      const isShown = isAtLeast(byName.get(name), deployment);
      if (isShown || clock.monotonic() - atMs > LAG_MS) this.#written.delete(name);
      else byName.set(name, deployment);
    }
    return [...byName.values()].filter((each) => isOwnedBy(each, uid));
  }

  /** Those that are not being deleted. */
  get deployments(): readonly Deployment[] {
    return this.all.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  }

  /** Workers asked for, all Deployments together. */
  get replicas(): number {
    return this.deployments.reduce((sum, each) => sum + replicasOf(each), 0);
  }

  /** The worker Pods of these Deployments, as the cache has them. */
  get pods(): readonly WorkerPod[] {
    const hashes = new Set(this.all.map(hashOfDeployment));
    return this.#context.pods
      .list()
      .map(readWorkerPod)
      .filter(({ hash }) => hashes.has(hash));
  }

  /**
   * Those of them that may still do something. One that ended by itself, as by an eviction of its node's, does nothing any
   * more, and stays where it is: a ReplicaSet has another one made in its place, and deletes it in no scale-down.
   */
  get remaining(): readonly WorkerPod[] {
    return this.pods.filter(({ hasEnded }) => !hasEnded);
  }

  /** The Pods of one Deployment as the API server has them now. Throws KubeApiError. */
  async livePods(deployment: Deployment): Promise<WorkerPod[]> {
    const { kube, points, namespace, name } = this.#context;
    const hash = hashOfDeployment(deployment);
    const labelSelector = `${LABEL_ENVIRONMENT}=${name},${LABEL_ROLE}=worker,${LABEL_TEMPLATE_HASH}=${hash}`;
    const { items } = await points.run("workers.list-pods", {}, () => kube.listAll(PODS, { namespace, labelSelector }));
    return items.map(readWorkerPod);
  }

  /** Whether the operator's policy allows what the present template asks for. */
  get isAllowed(): boolean {
    return allowsAll(this.#context.podPolicy, this.#context.template().needs);
  }

  /**
   * Makes the Deployment of the present template, if that is allowed.
   * @throws KubeApiError, also when there is one of the name: the cache shows it soon, or it goes, or it is not ours any more.
   */
  async create(replicas: number): Promise<void> {
    const { kube, points } = this.#context;
    const template = this.#context.template();
    // Here too: a spec may have changed since the reconciler gave leave.
    if (!allowsAll(this.#context.podPolicy, template.needs)) return;
    const create = () => kube.create(DEPLOYMENTS, template.deployment(replicas));
    this.#note(await points.run("workers.create", { asks: { replicas } }, create));
  }

  /**
   * Changes how many workers a Deployment has, if it still has as many as it had when that was decided.
   * @throws KubeApiError, also when somebody else changed it meanwhile.
   */
  async scale(deployment: Deployment, replicas: number): Promise<void> {
    const before = replicasOf(deployment);
    const asks = { from: before, to: replicas };
    await this.#patch("workers.scale", asks, deployment, [
      { op: "test", path: "/spec/replicas", value: before },
      { op: "replace", path: "/spec/replicas", value: replicas },
    ]);
  }

  /**
   * Whether somebody else changed the spec since this process wrote it. Of one that it never wrote, whether it lacks what it
   * was made with: what admission added when it was made stays, since taking it away would roll all workers, busy ones too.
   */
  isForeign(deployment: Deployment): boolean {
    const known = this.#generations.get(deployment.metadata.uid ?? "");
    if (known !== undefined) return known !== generationOf(deployment);
    return !contains(deployment.spec.template, this.#context.template().deployment(0).spec.template);
  }

  /**
   * Puts the template of the present hash back to what it was made as; no change when it is, or when it is not allowed any
   * more. Throws KubeApiError.
   */
  async putRight(deployment: Deployment): Promise<void> {
    if (!this.isAllowed) return;
    const { template } = this.#context;
    const { template: value } = template().deployment(0).spec;
    await this.#patch("workers.put-right", {}, deployment, [{ op: "replace", path: "/spec/template", value }]);
  }

  /**
   * Deletes a Deployment with all its Pods. In the foreground: it stays until the last of them is gone, so that anybody can
   * see that something is left. Throws KubeApiError.
   */
  async remove(deployment: Deployment): Promise<void> {
    const { kube, points, namespace } = this.#context;
    const { name = "", uid } = deployment.metadata;
    const options = { ...(uid ? { uid } : {}), propagationPolicy: "Foreground" } as const;
    try {
      await points.run("workers.remove", {}, () => kube.delete(DEPLOYMENTS, { namespace, name }, options));
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    this.#written.delete(name);
  }

  async #patch(
    point: WorkersPoint,
    asks: PointDetails,
    deployment: Deployment,
    operations: readonly object[],
  ): Promise<void> {
    const { kube, points, namespace } = this.#context;
    const { name = "", uid } = deployment.metadata;
    const patch = [{ op: "test", path: "/metadata/uid", value: uid }, ...operations];
    try {
      const write = () => kube.patch(DEPLOYMENTS, { namespace, name }, patch, { type: "json" });
      this.#note(await points.run(point, { asks }, write));
    } catch (error) {
      if (isNotFound(error)) this.#written.delete(name);
      throw error;
    }
  }

  #note(written: Deployment): void {
    const atMs = this.#context.clock.monotonic();
    this.#written.set(written.metadata.name ?? "", { deployment: written, atMs });
    this.#generations.set(written.metadata.uid ?? "", generationOf(written));
  }
}

/** The template hash that a Deployment and its Pods bear. */
export function hashOfDeployment({ metadata }: Deployment): string {
  return metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "";
}

/**
 * What its template asked for. Of one that does not say, what stands in it now: of that some may be the API server's doing,
 * which gives every port of a Pod with hostNetwork a port of the node, or a webhook's.
 */
export function needsOfDeployment({ metadata, spec }: Deployment): readonly string[] {
  return readNeeds(metadata.annotations?.[ANNOTATION_NEEDS]) ?? needWords(spec.template);
}

/** `spec.replicas`, which is 1 where it is not set. */
export function replicasOf({ spec }: Deployment): number {
  return spec.replicas ?? 1;
}

/** Whether the cache shows this write, or a later one, or another object of the name. */
function isAtLeast(cached: Deployment | undefined, written: Deployment): boolean {
  if (!cached) return false;
  return cached.metadata.uid !== written.metadata.uid || generationOf(cached) >= generationOf(written);
}

function generationOf({ metadata }: Deployment): number {
  return metadata.generation ?? 0;
}

/**
 * Whether `actual` has everything that `wanted` says; more is fine: the API server adds defaults, and admission what it
 * likes. Of lists, entries with a name are found by it, others by their place.
 */
export function contains(actual: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) {
    return Array.isArray(actual) && wanted.every((each, index) => contains(counterpart(actual, each, index), each));
  }
  if (typeof wanted !== "object" || wanted === null) return actual === wanted;
  if (typeof actual !== "object" || actual === null) return false;
  return Object.entries(wanted).every(([key, value]) => contains(Reflect.get(actual, key), value));
}

function counterpart(list: readonly unknown[], wanted: unknown, index: number): unknown {
  const name = nameOf(wanted);
  return name === undefined ? list[index] : list.find((each) => nameOf(each) === name);
}

function nameOf(entry: unknown): unknown {
  return typeof entry === "object" && entry !== null ? Reflect.get(entry, "name") : undefined;
}
