import { ANNOTATION_NEEDS, LABEL_ENVIRONMENT, LABEL_ROLE, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import type { PointDetails } from "../core/points.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { DEPLOYMENTS, type Deployment, PODS } from "../kube/resource.ts";
import { allowsAll, needWords, readNeeds } from "../policy/pod-policy.ts";
import type { WorkersContext, WorkersPoint } from "./context.ts";
import { isOwnedBy, readWorkerPod, type WorkerPod } from "./worker-pod.ts";

/** How long a write waits for the cache to show it: the object may be gone again. */
const LAG_MS = 30_000;

/**
 * The Deployments of one Environment and their Pods. The last writes override the caches, so that a lagging cache does
 * not cause the same decision twice.
 */
export class Fleet {
  readonly #context: WorkersContext;
  /** The API server's last answers, by name, until the cache catches up. */
  readonly #written = new Map<string, { readonly deployment: Deployment; readonly atMs: number }>();
  /**
   * Generation of each Deployment's spec as this process last wrote it, by uid: any other generation is another
   * client's change.
   */
  readonly #generations = new Map<string, number>();

  constructor(context: WorkersContext) {
    this.#context = context;
  }

  /** All Deployments of this Environment, including those being deleted. */
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

  /** The Deployments that are not being deleted. */
  get deployments(): readonly Deployment[] {
    return this.all.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  }

  /** The replicas of all Deployments together. */
  get replicas(): number {
    return this.deployments.reduce((sum, each) => sum + replicasOf(each), 0);
  }

  /** The worker Pods of these Deployments, from the cache. */
  get pods(): readonly WorkerPod[] {
    const hashes = new Set(this.all.map(hashOfDeployment));
    return this.#context.pods
      .list()
      .map(readWorkerPod)
      .filter(({ hash }) => hashes.has(hash));
  }

  /**
   * The Pods that may still do something. A Pod that ended, for example by a node eviction, does nothing more but
   * remains: its ReplicaSet replaces it, and deletes it in no scale-down.
   */
  get remaining(): readonly WorkerPod[] {
    return this.pods.filter(({ hasEnded }) => !hasEnded);
  }

  /** The Pods of one Deployment, read live. Throws KubeApiError. */
  async livePods(deployment: Deployment): Promise<WorkerPod[]> {
    const { kube, points, namespace, name } = this.#context;
    const hash = hashOfDeployment(deployment);
    const labelSelector = `${LABEL_ENVIRONMENT}=${name},${LABEL_ROLE}=worker,${LABEL_TEMPLATE_HASH}=${hash}`;
    const { items } = await points.run("workers.list-pods", {}, () => kube.listAll(PODS, { namespace, labelSelector }));
    return items.map(readWorkerPod);
  }

  /** Whether the operator's policy allows what the current template needs. */
  get isAllowed(): boolean {
    return allowsAll(this.#context.podPolicy, this.#context.template().needs);
  }

  /**
   * Creates the Deployment of the current template, if that is allowed.
   * @throws KubeApiError, also if the name exists: the cache will show it soon, it is being deleted, or it is not ours
   * any more
   */
  async create(replicas: number): Promise<void> {
    const { kube, points } = this.#context;
    const template = this.#context.template();
    // Checked here, too: the spec may have changed since the reconciler allowed creation.
    if (!allowsAll(this.#context.podPolicy, template.needs)) return;
    const create = () => kube.create(DEPLOYMENTS, template.deployment(replicas));
    const created = await points.run("workers.create", { asks: { replicas } }, create);
    this.#note(created);
    this.#own(created);
  }

  /**
   * Changes the replicas of a Deployment, if it still has the number that the decision was based on.
   * @throws KubeApiError, also if another client changed it meanwhile
   */
  async scale(deployment: Deployment, replicas: number): Promise<void> {
    const before = replicasOf(deployment);
    const asks = { from: before, to: replicas };
    const wasOwn = !this.isForeign(deployment);
    const scaled = await this.#patch("workers.scale", asks, deployment, [
      { op: "test", path: "/spec/replicas", value: before },
      { op: "replace", path: "/spec/replicas", value: replicas },
    ]);
    // Otherwise another client changed the template, which is then restored.
    if (wasOwn && generationOf(scaled) <= generationOf(deployment) + 1) this.#own(scaled);
  }

  /**
   * Whether another client changed the spec since this process wrote it. For a Deployment that this process never
   * wrote: whether it lacks anything that it was created with. Additions by admission stay, since removing them would
   * roll all workers, including busy ones.
   */
  isForeign(deployment: Deployment): boolean {
    const known = this.#generations.get(deployment.metadata.uid ?? "");
    if (known !== undefined) return known !== generationOf(deployment);
    return !contains(deployment.spec.template, this.#context.template().deployment(0).spec.template);
  }

  /**
   * Restores the template of the current Deployment. A no-op if it is unchanged or no longer allowed. Throws
   * KubeApiError.
   */
  async putRight(deployment: Deployment): Promise<void> {
    if (!this.isAllowed) return;
    const { template } = this.#context;
    const { template: value } = template().deployment(0).spec;
    const restore = [{ op: "replace", path: "/spec/template", value }];
    this.#own(await this.#patch("workers.put-right", {}, deployment, restore));
  }

  /**
   * Deletes a Deployment with all its Pods. Foreground deletion keeps the Deployment until its last Pod is gone, so
   * that the remainder is visible. Throws KubeApiError.
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

  /** Shortens the grace period of a worker that is being deleted. Throws KubeApiError. */
  async hurry({ name, uid }: WorkerPod, gracePeriodSeconds: number): Promise<void> {
    const { kube, points, namespace } = this.#context;
    const shorten = () => kube.delete(PODS, { namespace, name }, { uid, gracePeriodSeconds });
    try {
      await points.run("workers.remove", { pod: name }, shorten);
    } catch (error) {
      // A conflict means another Pod of that name.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }

  async #patch(
    point: WorkersPoint,
    asks: PointDetails,
    deployment: Deployment,
    operations: readonly object[],
  ): Promise<Deployment> {
    const { kube, points, namespace } = this.#context;
    const { name = "", uid } = deployment.metadata;
    const patch = [{ op: "test", path: "/metadata/uid", value: uid }, ...operations];
    try {
      const write = () => kube.patch(DEPLOYMENTS, { namespace, name }, patch, { type: "json" });
      const written = await points.run(point, { asks }, write);
      this.#note(written);
      return written;
    } catch (error) {
      if (isNotFound(error)) this.#written.delete(name);
      throw error;
    }
  }

  #note(written: Deployment): void {
    const atMs = this.#context.clock.monotonic();
    this.#written.set(written.metadata.name ?? "", { deployment: written, atMs });
  }

  /** The spec is now as this process wrote it. */
  #own(written: Deployment): void {
    this.#generations.set(written.metadata.uid ?? "", generationOf(written));
  }
}

/** The template hash in the labels of a Deployment and its Pods. */
export function hashOfDeployment({ metadata }: Deployment): string {
  return metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "";
}

/**
 * What its template needed when it was created. Without the annotation: what the current spec needs, which may include
 * additions by webhooks or the API server, such as node ports for hostNetwork.
 */
export function needsOfDeployment({ metadata, spec }: Deployment): readonly string[] {
  return readNeeds(metadata.annotations?.[ANNOTATION_NEEDS]) ?? needWords(spec.template);
}

/** `spec.replicas`, with its default of 1. */
export function replicasOf({ spec }: Deployment): number {
  return spec.replicas ?? 1;
}

/** Whether the cache shows this write, a later one, or another object of the name. */
function isAtLeast(cached: Deployment | undefined, written: Deployment): boolean {
  if (!cached) return false;
  return cached.metadata.uid !== written.metadata.uid || generationOf(cached) >= generationOf(written);
}

function generationOf({ metadata }: Deployment): number {
  return metadata.generation ?? 0;
}

/**
 * Whether `actual` contains everything in `wanted`. Additions are fine: the API server adds defaults, and admission may
 * add anything. List entries with a name match by name, others by index.
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
