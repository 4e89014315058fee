import { NONE_OF_OURS } from "../autoscale/demand.ts";
import type { Deployment } from "../kube/resource.ts";
import { BUSY_COST, type BusyWatch, forEachAtMost } from "./busy-watch.ts";
import type { DemandWatch } from "./demand-watch.ts";
import { type Fleet, replicasOf } from "./fleet.ts";
import { isCounted, type WorkerPod } from "./worker-pod.ts";

/** Below the cost of every Pod that nobody marked: also one that no cache has shown yet is ended later than these. */
export const VICTIM_COST = "-1000";

/** Marks under way at a time. */
const CONCURRENCY = 16;

/** How a shrink went. */
export interface Shrunk {
  /** `spec.replicas` now. */
  readonly replicas: number;
  /** Why it is more than was asked for; null: it is not. */
  readonly held: string | null;
}

/**
 * Takes workers away without ending one that is or may be busy. The order matters: read the Pods live; ask those that may
 * go once more; mark the ones that go and the busy ones, and see from the answers that the marks are there; then lower
 * the count. What remains is the moment between the last answer and SIGTERM.
 * @throws KubeApiError
 */
export async function shrink(
  parts: { readonly fleet: Fleet; readonly busy: BusyWatch; readonly demand: DemandWatch },
  deployment: Deployment,
  order: {
    readonly target: number;
    /** No worker is wanted, whatever waits in the queue. */
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
  if (signal.aborted) return hold("the operator ends");
  const { kept, free } = sorted(pods, busy);
  const unready = kept.find(({ isReady }) => !isReady);
  if (unready && free.length > 0) {
    return hold(`worker ${unready.name} is or may be busy and is not Ready, so it would be ended first`);
  }
  const missing = Math.max(0, replicas - pods.length);
  const least = Math.max(target, replicas - missing - free.length);
  const victims = free.slice(0, Math.max(0, replicas - least - missing));
  if (busy.isProbed && !(await mark(busy, kept, victims))) return hold("the workers could not be marked");
  if (signal.aborted || least === replicas) return { replicas, held: least > target ? busyText(kept) : null };
  await fleet.scale(deployment, least);
  return { replicas: least, held: least > target ? busyText(kept) : null };
}

/** Workers that stay whatever happens, and the others in the order in which they go. */
function sorted(pods: readonly WorkerPod[], busy: BusyWatch): { kept: WorkerPod[]; free: WorkerPod[] } {
  const isFree = (pod: WorkerPod) => !busy.isProbed || busy.stateOf(pod) === "idle";
  const rank = (pod: WorkerPod) => (pod.isReady ? 2 : 0) + (pod.isRunning ? 1 : 0);
  return {
    kept: pods.filter((pod) => !isFree(pod)),
    free: pods.filter(isFree).toSorted((a, b) => rank(a) - rank(b)),
  };
}

/** False when a mark is not there although it was written: somebody else writes them too. */
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
 * What a worker that stays keeps of its cost. One that was to go once, when the count was not lowered in the end, would cost as
 * little as those that are to go now.
 */
function withoutVictim(cost: string | null): string | null {
  return cost === VICTIM_COST ? null : cost;
}

/** Without a probe only the Work API knows: nothing goes while a session runs, or is about to. */
async function sessionsThatRun(demand: DemandWatch, isLeaving: boolean, signal: AbortSignal): Promise<string | null> {
  if (!(await demand.refreshAll(signal))) return "whether sessions run could not be read anew";
  const { queue, running } = demand.readings;
  const runningCount = running === NONE_OF_OURS ? 0 : (running?.running ?? 0);
  const held = runningCount + (queue?.pending ?? 0) + (isLeaving ? 0 : (queue?.depth ?? 0));
  return held === 0 ? null : `${held} sessions run or wait, and there is no busyProbe to say on which workers`;
}

function busyText(kept: readonly WorkerPod[]): string {
  return `${kept.length} workers are or may be busy`;
}
