import {
  ANNOTATION_BUSY_PROBE,
  ANNOTATION_DELETION_COST,
  ANNOTATION_SESSION_CONTAINER,
  LABEL_TEMPLATE_HASH,
} from "../api/names.ts";
import { ENDED_PHASES } from "../kube/objects.ts";
import type { ContainerStatus, Deployment, Pod } from "../kube/resource.ts";

/** A worker Pod, as input for scaling. */
export interface WorkerPod {
  readonly name: string;
  readonly uid: string;
  readonly hash: string;
  /** Being deleted: it finishes its sessions, takes no more, and is none of the replicas. */
  readonly isEnding: boolean;
  /** Failed or Succeeded: the ReplicaSet replaces it. */
  readonly hasEnded: boolean;
  /** Seconds from its SIGTERM to its SIGKILL, while it is being deleted. */
  readonly graceSeconds: number | undefined;
  /** Whether the worker's program runs now. */
  readonly isRunning: boolean;
  /** How the program ended, while it does not run. */
  readonly exitCode: number | undefined;
  /** Whether the program was started at least once, so that the Pod may be doing work that is not visible yet. */
  readonly hasStarted: boolean;
  readonly isReady: boolean;
  readonly ip: string | undefined;
  /** Where to probe whether it is busy; null if its template has no probe. */
  readonly probe: { readonly port: number; readonly path: string } | null;
  /** Restarts of the worker's container. */
  readonly restarts: number;
  /** Its deletion cost; null if it has none. */
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
    hasEnded: ENDED_PHASES.has(status?.phase ?? ""),
    graceSeconds: metadata.deletionGracePeriodSeconds,
    isRunning,
    exitCode: worker?.state?.terminated?.exitCode,
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
 * The worker's own container, which the Pod names: another template may use another name, and injected sidecars do not
 * count. If the Pod does not name it, any running container may be the worker.
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

/** Whether it is being deleted, and its program still runs. */
export function isStillRunning({ isEnding, hasEnded, isRunning }: WorkerPod): boolean {
  return isEnding && !hasEnded && isRunning;
}

/** Whether the Environment with this uid controls the Deployment. */
export function isOwnedBy(deployment: Deployment, uid: string): boolean {
  return deployment.metadata.ownerReferences?.some((owner) => owner.controller && owner.uid === uid) === true;
}
