import {
  type CapacityInput,
  type CapacityPlan,
  type FreePod,
  planCapacity,
  preparedByMs,
  type RemovalReason,
} from "./capacity.ts";

/** A free Pod that can serve one session only; null: none, since it has no volume (by an earlier spec). */
export interface BoundPod extends FreePod {
  readonly sessionId: string | null;
  /** When it was first seen parked; null: never. */
  readonly parkedMs: number | null;
}

/** A session that waits for a Pod. */
export interface Waiting {
  readonly sessionId: string;
  /** Whether it has a volume, so that it needs its own Pod. Otherwise any Pod whose volume has no session serves it. */
  readonly hasVolume: boolean;
}

/** The input of `planBoundCapacity`. Times are the API server's clock. */
export interface BoundCapacityInput {
  readonly nowMs: number;
  readonly hash: string;
  readonly maxConcurrent: number;
  /** The most free Pods; below maxConcurrent while containers fail to start. */
  readonly mostFree: number;
  readonly busy: number;
  /** Sessions for which a Pod creation was sent that the cache does not show yet. */
  readonly creating: ReadonlySet<string>;
  readonly pods: readonly BoundPod[];
  /** Sessions that wait for a Pod, in order. */
  readonly awaited: readonly Waiting[];
  readonly lastOfferedMs: (sessionId: string) => number;
  /** Whether a Pod of the session exists that may still write to its volume. */
  readonly isTaken: (sessionId: string) => boolean;
  readonly prepareTimeoutMs: number;
  readonly unclaimedParkedMs: number;
  readonly unclaimedPreparingMs: number;
  readonly draining: boolean;
}

/** A plan that names the sessions to create Pods for; `create` counts these, and Pods for any session. */
export interface BoundCapacityPlan extends CapacityPlan {
  readonly sessions: readonly string[];
}

/**
 * Plans the Pods of an Environment with volumes: those for sessions that have one, and those whose volume has no session
 * yet, which `warm` and the other waiting sessions ask for. Both share `maxConcurrent`: a Pod for a waiting session comes
 * before one that is only kept warm. Pure.
 * @param unassigned the Pods whose volume has no session; its `demand` is not used
 * @param lost names of Pods whose volume is gone
 */
export function planVolumeCapacity(
  bound: BoundCapacityInput,
  unassigned: CapacityInput,
  lost: readonly string[],
): BoundCapacityPlan {
  const { demand, ...own } = planBoundCapacity(bound);
  const rest = planCapacity({ ...unassigned, busy: unassigned.busy + own.wanted, demand });
  const times = [own.againAtMs, rest.againAtMs].filter((atMs) => atMs !== null);
  return {
    wanted: own.wanted + rest.wanted,
    create: own.create + rest.create,
    sessions: own.sessions,
    remove: [...lost.map((name) => ({ name, reason: "VolumeLost" as const })), ...own.remove, ...rest.remove],
    surplusSinceMs: rest.surplusSinceMs,
    againAtMs: times.length > 0 ? Math.min(...times) : null,
  };
}

/**
 * Decides which sessions get their own Pod, and which Pods to remove. Pure. A session gets no second Pod while it has
 * one, in any state, that may use its volume.
 */
export function planBoundCapacity(input: BoundCapacityInput): BoundCapacityPlan & {
  /** Waiting sessions without a volume that have room. */
  readonly demand: number;
} {
  const remove: { name: string; reason: RemovalReason }[] = [];
  const kept = new Set<string>();
  // Of two, keep the parked one, otherwise the older one: a creation sent by a dead process may take effect late.
  const pods = [...input.pods].sort(
    (a, b) => Number(b.state === "warm") - Number(a.state === "warm") || a.createdAtMs - b.createdAtMs,
  );
  // A Pod that is being deleted still holds the volume.
  const isThere = new Set(pods.map(({ sessionId }) => sessionId));
  const mayGet = ({ sessionId: id, hasVolume }: Waiting) =>
    !hasVolume || !(isThere.has(id) || input.creating.has(id) || input.isTaken(id));
  const missing = input.draining ? [] : input.awaited.filter(mayGet);
  let left = 0;
  const room = Math.max(0, Math.min(input.mostFree, input.maxConcurrent - input.busy));
  for (const pod of pods) {
    const reason = removalReason(pod, input, missing.length > 0) ?? (kept.has(pod.sessionId ?? "") ? "Surplus" : null);
    if (reason !== null) remove.push({ name: pod.name, reason });
    else if (left >= room) remove.push({ name: pod.name, reason: "OverMaximum" });
    else {
      kept.add(pod.sessionId ?? "");
      left += 1;
    }
  }
  const next = missing.slice(0, Math.max(0, room - left - input.creating.size));
  const sessions = next.filter(({ hasVolume }) => hasVolume).map(({ sessionId }) => sessionId);
  return {
    wanted: input.draining ? 0 : left + input.creating.size + sessions.length,
    create: sessions.length,
    sessions,
    demand: next.length - sessions.length,
    remove,
    surplusSinceMs: null,
    againAtMs: nextChange(pods, input, missing.length > 0),
  };
}

function removalReason(pod: BoundPod, input: BoundCapacityInput, othersWait: boolean): RemovalReason | null {
  if (input.draining) return "Draining";
  if (isBounded(pod, othersWait) && preparedByMs(pod, input) <= input.nowMs) return "PrepareTimeout";
  if (pod.leaving) return "NodeLeaving";
  if (pod.forbidden) return "Forbidden";
  // No session waits for it, so it can go before its successor exists.
  if (pod.hash !== input.hash || pod.sessionId === null) return "Outdated";
  return unclaimedAtMs(pod, input) <= input.nowMs ? "Unclaimed" : null;
}

/**
 * Whether the prepare timeout applies. An unscheduled Pod may wait without limit, unless other sessions wait: their
 * Pods may fit, since their volumes may be elsewhere.
 */
function isBounded({ state }: BoundPod, othersWait: boolean): boolean {
  return state === "preparing" || (state === "unscheduled" && othersWait);
}

/** When it counts as unclaimed. Its item was not offered for this long, so it was stopped or is served elsewhere. */
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
