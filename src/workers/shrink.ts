import { NONE_OF_OURS } from "../autoscale/demand.ts";
import type { Deployment } from "../kube/resource.ts";
import { BUSY_COST, type BusyWatch, forEachAtMost } from "./busy-watch.ts";
import type { DemandWatch } from "./demand-watch.ts";
import { type Fleet, replicasOf } from "./fleet.ts";
import { isCounted, type WorkerPod } from "./worker-pod.ts";

/** Below the cost of every unmarked Pod: a Pod that no cache has shown yet also ends after these. */
export const VICTIM_COST = "-1000";

/** Marks in flight at a time. */
const CONCURRENCY = 16;

/** The result of a shrink. */
export interface Shrunk {
  /** `spec.replicas` now. */
  readonly replicas: number;
  /** Why it is more than requested; null: it is not. */
  readonly held: string | null;
}

/**
 * Removes workers without ending one that is or may be busy. The order matters: read the Pods live, probe the
 * candidates again, mark the victims and the busy workers, check the marks in the answers, then lower the count. A race
 * remains only between the last probe and SIGTERM.
 * @throws KubeApiError
 */
export async function shrink(
  parts: { readonly fleet: Fleet; readonly busy: BusyWatch; readonly demand: DemandWatch },
  deployment: Deployment,
  order: {
    readonly target: number;
    /** Whether no worker is needed, whatever waits in the queue. */
    readonly isLeaving: boolean;
  },
  signal: AbortSignal,
): Promise<Shrunk> {
  const { target } = order;
  const { fleet, busy, demand } = parts;
  const replicas = replicasOf(deployment);
  const hold = (held: string): Shrunk => ({ replicas, held });
  const pods = (await fleet.livePods(deployment)).filter(isCounted);
  if (!busy.isProbed && pods.some(({ isRunning }) => isRunning)) {
    const held = await sessionsThatRun(demand, order.isLeaving, signal);
    if (held !== null) return hold(held);
  }
  await busy.ask(
    pods.filter((pod) => busy.stateOf(pod) !== "busy"),
    signal,
  );
  if (signal.aborted) return hold("the operator is stopping");
  const { kept, free } = sorted(pods, busy);
  const unready = kept.find(({ isReady }) => !isReady);
  if (unready && free.length > 0) {
    return hold(`worker ${unready.name} is not Ready and may be busy, and Kubernetes would end it first`);
  }
  // There are more Pods than replicas while the ReplicaSet has not acted on the last shrink: it then ends those, too.
  const least = Math.max(target, Math.min(replicas, kept.length));
  const victims = free.slice(0, Math.max(0, pods.length - least));
  if (busy.isProbed && !(await mark(busy, kept, victims))) return hold("cannot mark the workers");
  if (signal.aborted || least === replicas) return { replicas, held: least > target ? busyText(kept) : null };
  await fleet.scale(deployment, least);
  return { replicas: least, held: least > target ? busyText(kept) : null };
}

/** Workers that must stay, and the others in the order of their removal. */
function sorted(pods: readonly WorkerPod[], busy: BusyWatch): { kept: WorkerPod[]; free: WorkerPod[] } {
  const isFree = (pod: WorkerPod) => !busy.isProbed || busy.stateOf(pod) === "idle";
  const rank = (pod: WorkerPod) => (pod.isReady ? 2 : 0) + (pod.isRunning ? 1 : 0);
  return {
    kept: pods.filter((pod) => !isFree(pod)),
    free: pods.filter(isFree).toSorted((a, b) => rank(a) - rank(b)),
  };
}

/** Returns false if a mark is missing after its write: another client writes the marks too. */
async function mark(busy: BusyWatch, kept: readonly WorkerPod[], victims: readonly WorkerPod[]): Promise<boolean> {
  let areThere = true;
  const wanted = [
    ...kept.map((pod) => ({ pod, cost: busy.stateOf(pod) === "busy" ? BUSY_COST : withoutVictim(pod.cost) })),
    ...victims.map((pod) => ({ pod, cost: VICTIM_COST })),
  ].filter(({ pod, cost }) => pod.cost !== cost);
  await forEachAtMost(CONCURRENCY, wanted, async ({ pod, cost }) => {
    if ((await busy.mark(pod, cost)) !== cost) areThere = false;
  });
  return areThere;
}

/**
 * The cost of a worker that stays. A former victim, spared because the count was not lowered, must not stay as cheap as
 * the current victims.
 */
function withoutVictim(cost: string | null): string | null {
  return cost === VICTIM_COST ? null : cost;
}

/** Without a probe, only the Work API knows: no worker goes while a session runs or is about to. */
async function sessionsThatRun(demand: DemandWatch, isLeaving: boolean, signal: AbortSignal): Promise<string | null> {
  if (!(await demand.refreshAll(signal))) return "cannot read again whether sessions run";
  const { queue, running } = demand.readings;
  const runningCount = running === NONE_OF_OURS ? 0 : (running?.running ?? 0);
  const held = runningCount + (queue?.pending ?? 0) + (isLeaving ? 0 : (queue?.depth ?? 0));
  return held === 0
    ? null
    : `${held} sessions run or wait, and without a busyProbe Berth does not know on which workers`;
}

function busyText(kept: readonly WorkerPod[]): string {
  return `${kept.length} workers are or may be busy`;
}
