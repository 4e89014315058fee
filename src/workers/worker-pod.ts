import {
  ANNOTATION_BUSY_PROBE,
  ANNOTATION_DELETION_COST,
  ANNOTATION_SESSION_CONTAINER,
  LABEL_TEMPLATE_HASH,
} from "../api/names.ts";
import type { ContainerStatus, Deployment, Pod } from "../kube/resource.ts";

/** A worker Pod, as far as scaling asks. */
export interface WorkerPod {
  readonly name: string;
  readonly uid: string;
  readonly hash: string;
  /** Being deleted: it polls no more, and no longer counts. */
  readonly isEnding: boolean;
  /** Failed or Succeeded: the ReplicaSet has a new one made for it. */
  readonly hasEnded: boolean;
  /** The worker's program runs now. */
  readonly isRunning: boolean;
  /** The program was started at least once, so that its Pod may be doing something that nobody has seen yet. */
  readonly hasStarted: boolean;
  readonly isReady: boolean;
  readonly ip: string | undefined;
  /** Where it is asked whether it is busy; null where its template said nothing of that. */
  readonly probe: { readonly port: number; readonly path: string } | null;
  /** Starts of the worker's container beyond the first. */
  readonly restarts: number;
  /** The deletion cost that it carries; null where it carries none. */
  readonly cost: string | null;
}

/** Reads a worker Pod. */
export function readWorkerPod(pod: Pod): WorkerPod {
  const { metadata, status } = pod;
  const worker = workerOf(pod);
  const restarts = worker?.restartCount ?? 0;
  const isRunning = worker?.state?.running !== undefined;
  return {
    name: metadata.name ?? "",
    uid: metadata.uid ?? "",
    hash: metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
    isEnding: metadata.deletionTimestamp !== undefined,
    hasEnded: status?.phase === "Failed" || status?.phase === "Succeeded",
    isRunning,
    hasStarted: isRunning || restarts > 0 || worker?.state?.terminated !== undefined,
    isReady: status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True") === true,
    ip: status?.podIP,
    probe: probeOf(pod),
    restarts,
    cost: metadata.annotations?.[ANNOTATION_DELETION_COST] ?? null,
  };
}

function probeOf({ metadata }: Pod): WorkerPod["probe"] {
  const [, port, path] = /^(\d+)(\/.*)$/.exec(metadata.annotations?.[ANNOTATION_BUSY_PROBE] ?? "") ?? [];
  return port !== undefined && path !== undefined ? { port: Number(port), path } : null;
}

/**
 * The worker's own container, which the Pod itself names: another template may call it otherwise, and injected sidecars say
 * nothing. Where nobody names it, any that runs may be the worker.
 */
function workerOf({ metadata, status }: Pod): ContainerStatus | undefined {
  const all = status?.containerStatuses ?? [];
  const named = metadata.annotations?.[ANNOTATION_SESSION_CONTAINER];
  return all.find(({ name }) => name === named) ?? all.find(({ state }) => state?.running) ?? all[0];
}

/** Whether it counts as one of the replicas. */
export function isCounted({ isEnding, hasEnded }: WorkerPod): boolean {
  return !isEnding && !hasEnded;
}

/** Whether the object's controller is the Environment of this uid. */
export function isOwnedBy(deployment: Deployment, uid: string): boolean {
  return deployment.metadata.ownerReferences?.some((owner) => owner.controller && owner.uid === uid) === true;
}
