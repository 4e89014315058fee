/**
 * What the operator knows of busy workers.
 * - `probed`: the results of a `busyProbe`. `busy` counts Pods whose last answer was busy. `unknown` counts Pods whose
 *   container runs but whose last answer is missing, old, or neither busy nor idle. `notReady` counts the Pods of both
 *   groups that are not Ready. A Pod whose container does not run serves no session and is in none of these.
 * - `unprobed`: there is no probe. Only the list and the statistics tell whether sessions run.
 */
export type BusyView =
  | { readonly kind: "probed"; readonly busy: number; readonly unknown: number; readonly notReady: number }
  | { readonly kind: "unprobed" };

/** The lowest allowed count, and the reason for it. */
export interface ScaleDownFloor {
  readonly replicas: number;
  readonly reason: "WorkersBusy" | "BusyWorkerNotReady" | "SessionsRunning";
  readonly message: string;
}

/**
 * Returns the lowest count that ends no worker which is or may be busy; null if none is busy. The ReplicaSet controller
 * ends unready Pods first, whatever their deletion cost (getPodsRankedByRelatedPodsOnSameNode and ActivePodsWithRanks
 * in Kubernetes). So nothing is removed while a busy worker is not Ready. Without a probe, the operator can't tell
 * which worker serves a session, so nothing is removed while a session runs, or was polled and is about to run.
 */
export function scaleDownFloor(
  view: BusyView,
  current: number,
  work: { readonly running: number; readonly pending: number },
): ScaleDownFloor | null {
  if (view.kind === "unprobed") {
    const held = work.running + work.pending;
    if (held === 0) return null;
    return {
      replicas: current,
      reason: "SessionsRunning",
      message: `${held} sessions run, and without a busyProbe Berth does not know on which workers`,
    };
  }
  const busy = view.busy + view.unknown;
  if (view.notReady > 0 && busy > 0) {
    return {
      replicas: current,
      reason: "BusyWorkerNotReady",
      message: `${view.notReady} workers are not Ready and may be busy, and Kubernetes would end them first`,
    };
  }
  if (busy === 0) return null;
  return {
    replicas: Math.min(current, busy),
    reason: "WorkersBusy",
    message: `${view.busy} workers are busy${view.unknown > 0 ? `, and ${view.unknown} do not answer` : ""}`,
  };
}
