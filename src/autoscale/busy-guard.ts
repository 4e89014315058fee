/**
 * What is known of the workers' business.
 * - `probed`: of a `busyProbe`. `busy`: Pods that said so last; `unknown`: Pods whose container runs and whose last answer
 *   is none, old, or neither busy nor idle; `notReady`: how many of both are not Ready. A Pod whose container does not run
 *   serves nobody and is none of these.
 * - `unprobed`: there is no probe; only the list and the statistics say whether any session runs.
 */
export type BusyView =
  | { readonly kind: "probed"; readonly busy: number; readonly unknown: number; readonly notReady: number }
  | { readonly kind: "unprobed" };

/** How far the count may fall, and what keeps it there. */
export interface ScaleDownFloor {
  readonly replicas: number;
  readonly reason: "WorkersBusy" | "BusyWorkerNotReady" | "SessionsRunning";
  readonly message: string;
}

/**
 * Null when nothing is busy; else the lowest count that ends no worker which is or may be busy. The ReplicaSet controller ends unready Pods first,
 * whatever their deletion cost (getPodsRankedByRelatedPodsOnSameNode and ActivePodsWithRanks in kubernetes): so nothing
 * goes while a busy one is not Ready. Without a probe nobody knows which worker serves a session: nothing goes while any
 * session runs, or was polled and is about to run.
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
      message: `${held} sessions run and there is no busyProbe to say on which workers`,
    };
  }
  const busy = view.busy + view.unknown;
  if (view.notReady > 0 && busy > 0) {
    return {
      replicas: current,
      reason: "BusyWorkerNotReady",
      message: `${view.notReady} workers that are or may be busy are not Ready, and would be ended first`,
    };
  }
  if (busy === 0) return null;
  return {
    replicas: Math.min(current, busy),
    reason: "WorkersBusy",
    message: `${view.busy} workers are busy${view.unknown > 0 ? `, and ${view.unknown} do not say` : ""}`,
  };
}
