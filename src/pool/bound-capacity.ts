import { type CapacityPlan, type FreePod, preparedByMs, type RemovalReason } from "./capacity.ts";

/** A free Pod that was made for one session; null: for none, by a spec of before. */
export interface BoundPod extends FreePod {
  readonly sessionId: string | null;
  /** When it was first seen parked; null: it was not. */
  readonly parkedMs: number | null;
}

/** What `planBoundCapacity` is handed. Times are the API server's clock. */
export interface BoundCapacityInput {
  readonly nowMs: number;
  readonly hash: string;
  readonly maxConcurrent: number;
  /** Most free Pods; less than maxConcurrent while containers do not start. */
  readonly mostFree: number;
  readonly busy: number;
  /** Sessions for which a Pod's creation was sent that the cache does not show yet. */
  readonly creating: ReadonlySet<string>;
  readonly pods: readonly BoundPod[];
  /** Sessions that wait for a Pod, in order. */
  readonly awaited: readonly string[];
  readonly lastOfferedMs: (sessionId: string) => number;
  /** A Pod of the session is there that may still write to its volume. */
  readonly isTaken: (sessionId: string) => boolean;
  readonly prepareTimeoutMs: number;
  readonly unclaimedParkedMs: number;
  readonly unclaimedPreparingMs: number;
  readonly draining: boolean;
}

/** A plan that says for which sessions Pods are made. */
export interface BoundCapacityPlan extends CapacityPlan {
  readonly sessions: readonly string[];
}

/**
 * Which sessions get a Pod of their own, and which Pods go. Pure. No session gets a second Pod while one of it is there that
 * may use its volume, whatever state that is in.
 */
export function planBoundCapacity(input: BoundCapacityInput): BoundCapacityPlan {
  const remove: { name: string; reason: RemovalReason }[] = [];
  const kept = new Set<string>();
  // The parked one of two first, else the older one: a creation of a process that died may land late.
  const pods = [...input.pods].sort(
    (a, b) => Number(b.state === "parked") - Number(a.state === "parked") || a.createdAtMs - b.createdAtMs,
  );
  // What is on its way out still has the volume.
  const isThere = new Set(pods.map(({ sessionId }) => sessionId));
  const missing = input.draining
    ? []
    : input.awaited.filter((id) => !isThere.has(id) && !input.creating.has(id) && !input.isTaken(id));
  let left = 0;
  const room = Math.max(0, Math.min(input.mostFree, input.maxConcurrent - input.busy));
  for (const pod of pods) {
    const reason = whyGone(pod, input, missing.length > 0) ?? (kept.has(pod.sessionId ?? "") ? "Surplus" : null);
    if (reason !== null) remove.push({ name: pod.name, reason });
    else if (left >= room) remove.push({ name: pod.name, reason: "OverMaximum" });
    else {
      kept.add(pod.sessionId ?? "");
      left += 1;
    }
  }
  const sessions = missing.slice(0, Math.max(0, room - left - input.creating.size));
  return {
    wanted: input.draining ? 0 : left + input.creating.size + sessions.length,
    create: sessions.length,
    sessions,
    remove,
    surplusSinceMs: null,
    againAtMs: nextChange(pods, input, missing.length > 0),
  };
}

function whyGone(pod: BoundPod, input: BoundCapacityInput, othersWait: boolean): RemovalReason | null {
  if (input.draining) return "Draining";
  if (isBounded(pod, othersWait) && preparedByMs(pod, input) <= input.nowMs) return "PrepareTimeout";
  if (pod.leaving) return "NodeLeaving";
  if (pod.forbidden) return "Forbidden";
  // Nobody waits in it, so that its successor need not be there first.
  if (pod.hash !== input.hash || pod.sessionId === null) return "Outdated";
  return unclaimedAtMs(pod, input) <= input.nowMs ? "Unclaimed" : null;
}

/**
 * Whether its preparation has to end some time. One without a node waits for as long as it likes, but not where others wait:
 * theirs may fit, as their volumes may be elsewhere.
 */
function isBounded({ state }: BoundPod, othersWait: boolean): boolean {
  return state === "preparing" || (state === "unscheduled" && othersWait);
}

/** Its item was stopped, or served elsewhere: it was not offered for so long. */
function unclaimedAtMs({ sessionId, parkedMs, createdAtMs }: BoundPod, input: BoundCapacityInput): number {
  const offeredMs = input.lastOfferedMs(sessionId ?? "");
  return parkedMs === null
    ? Math.max(offeredMs, createdAtMs) + input.unclaimedPreparingMs
    : Math.max(offeredMs, parkedMs) + input.unclaimedParkedMs;
}

function nextChange(pods: readonly BoundPod[], input: BoundCapacityInput, othersWait: boolean): number | null {
  const times = pods.flatMap((pod) => [
    ...(isBounded(pod, othersWait) ? [preparedByMs(pod, input)] : []),
    unclaimedAtMs(pod, input),
  ]);
  const next = Math.min(...times.filter((at) => at > input.nowMs));
  return Number.isFinite(next) ? next : null;
}
