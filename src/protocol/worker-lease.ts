import { NO_HEARTBEAT } from "../work/types.ts";
import { isLater, isReacknowledged } from "./claim.ts";
import type { ItemView } from "./claim-observed.ts";
import { type Facts, isOver, type LeaseKind, lookAgain, overdueEnding, ranFor, stopPatienceMs } from "./facts.ts";
import { fenceAndStop, settleItem } from "./settling.ts";
import { nextTouchMs, starting } from "./starting.ts";
import { deletePod, type Ending, LOOK, type Step, waitUntil } from "./step.ts";

/** lease: Worker: the program in the container sends the heartbeats. */
export const WORKER_LEASE: LeaseKind = {
  open,
  watch: (facts) => (facts.pod.is === "running" ? running(facts, facts.pod.startedAtMs) : starting(facts)),
  whileDeleting: (_, goneByMs) => ({ do: "wait", untilMs: goneByMs }),
  settle: settleItem,
};

// --- 5. Open, lease: Worker ---------------------------------------------------------------------------------------

/** lease: Worker. `active` already: somebody beats an item whose container we never started. It is settled, not opened. */
function open(facts: Facts, acknowledgedAt: string, patienceMs: number): Step {
  const { claim, pod, nowMs, timing } = facts;
  const {
    observed: { item },
  } = claim;
  const untouched = claim.lease.memory.is === "none" && item?.state === "starting" && !isReacknowledged(claim, item);
  if (!untouched) return settleItem(facts);
  if (pod.is !== "parked") return waitUntil(patienceMs);
  return item.askedMs < nowMs - timing.beatIntervalMs ? LOOK : { do: "open", acknowledgedAt };
}

// --- 6. Watch, lease: Worker --------------------------------------------------------------------------------------

/** Of a container that runs and beats by itself. */
function running(facts: Facts, startedAtMs: number): Step {
  const { claim, nowMs, timing, limits } = facts;
  const item = claim.observed.item;
  const touchAt = facts.podAssigned ? Number.POSITIVE_INFINITY : nextTouchMs(claim, timing);
  const until = (...times: number[]): Step => waitUntil(touchAt, ...times);
  // kubelet looked by itself: the Pod still has to say whose it is, and to get its deadline.
  if (nowMs >= touchAt) return { do: "touch" };
  if (claim.record.ending?.why === "NoFirstBeat") {
    const step = settleItem(facts);
    return step.do === "settled" ? deletePod("NoFirstBeat", claim.record.ending.message) : step;
  }
  // The beat that the item shows may be a fence of ours: if it stands still, nobody else beats.
  if (claim.lease.blindFence && item?.state === "active") return fenceAndStop(facts);
  const ranMs = ranFor(facts, startedAtMs);
  const overdueMs = limits.maxDurationMs - ranMs;
  const endsInMs = Math.min(overdueMs, limits.drainDeadlineMs - nowMs);
  const aheadMs = timing.beatIntervalMs + timing.observeFirstBeatMs;
  if (!item || item.state === "unknown") {
    // The sweep has a pace of its own, and its next view may come too late to tell the session to stop.
    return endsInMs <= aheadMs ? lookAgain(facts) : until(nowMs + timing.observeFirstBeatMs);
  }

  if (isOver(item) || isReacknowledged(claim, item)) {
    // The worker finds out by its next beat and leaves by itself.
    const since = claim.observed.lostSinceMs ?? nowMs;
    const patience = since + timing.assumedTtlMs + timing.beatIntervalMs;
    if (nowMs < patience) return until(patience);
    if (item.askedMs < patience) return LOOK;
    const stopped = item.state === "stopped";
    return deletePod(
      stopped ? "StoppedByUser" : "LeaseLost",
      `the work item is ${isOver(item) ? item.state : "acknowledged by somebody else"} and the container did not leave by itself`,
    );
  }
  if (item.state === "stopping") {
    const patience = (claim.observed.stoppingSinceMs ?? nowMs) + limits.graceMs;
    if (nowMs < patience) return until(patience);
    const why = claim.record.ending?.why ?? "StoppedByUser";
    return deletePod(
      why,
      claim.record.ending?.message ?? "the work item was told to stop and the container did not leave within its grace",
    );
  }
  if (item.state === "starting") {
    const leftMs = Math.min(firstBeatInMs(facts, ranMs), endsInMs);
    if (leftMs > 0) return until(nowMs + leftMs);
    // It may have been beaten since it was seen: a fence would be refused, and cost the time in which it can be told. And a
    // Work API that answers nobody has this look say so.
    if (item.askedMs < nowMs + leftMs) return LOOK;
    // Fence, stop, then delete: a stock worker that gets SIGTERM before its first beat posts a stop of its own.
    return { do: "fence", expected: NO_HEARTBEAT };
  }
  if (endsInMs > aheadMs) return until(nowMs + endsInMs - aheadMs);
  return nearItsEnd(facts, item, endsInMs, overdueEnding(overdueMs <= 0));
}

/**
 * How long the first heartbeat may still take. While the Work API was silent the worker's failed with everyone else's: that
 * time does not count, and the worker's next try may come a heartbeat interval after it.
 */
function firstBeatInMs({ claim, nowMs, timing, limits }: Facts, ranMs: number): number {
  const leftMs = limits.firstBeatTimeoutMs + claim.observed.silentMs - ranMs;
  return claim.observed.silenceEndMs === null
    ? leftMs
    : Math.max(leftMs, claim.observed.silenceEndMs + timing.beatIntervalMs - nowMs);
}

/**
 * Its time is over, or soon will be. Only the side that surely holds the lease may be told to stop: our container runs, and
 * its last heartbeat moved between two looks, the first of them not long ago. So it is looked at a beat interval ahead, and
 * again and again: the newest beat seen is what counts. One that does not beat loses its lease by itself.
 */
function nearItsEnd(facts: Facts, item: ItemView, leftMs: number, ending: [Ending, string]): Step {
  const { claim, nowMs, timing, limits } = facts;
  const {
    lease: { memory },
  } = claim;
  const endsMs = nowMs + leftMs;
  const patience =
    claim.lease.gracefulStopMs === null
      ? endsMs + stopPatienceMs(limits.graceMs, timing)
      : claim.lease.gracefulStopMs + limits.graceMs;
  if (nowMs >= patience) return deletePod(...ending);
  if (claim.lease.gracefulStopMs !== null) return { do: "wait", untilMs: patience };
  const shown = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot") return { do: "snapshot", value: shown };
  // The first look may have shown a list that was behind.
  const heldUntil = (beatenSinceMs: number) => beatenSinceMs - timing.listLagMs + timing.beatIntervalMs;
  if (item.askedMs > memory.sinceMs) {
    // An older value is from a list that is further behind: noted, the newer one would seem to move again.
    const isNew = isLater(shown, memory.value);
    const [value, beatenSinceMs] = isNew ? [shown, memory.sinceMs] : [memory.value, memory.beatenSinceMs];
    const proves = beatenSinceMs !== undefined && nowMs < heldUntil(beatenSinceMs);
    return proves ? { do: "snapshot", value, beatenSinceMs } : { do: "snapshot", value };
  }
  const { beatenSinceMs } = memory;
  if (beatenSinceMs !== undefined && nowMs < heldUntil(beatenSinceMs)) {
    if (leftMs <= 0) return { do: "stop", force: false };
    if (endsMs < heldUntil(beatenSinceMs)) return waitUntil(endsMs);
  }
  const again = memory.sinceMs + timing.observeFirstBeatMs;
  return nowMs >= again ? LOOK : waitUntil(again, patience);
}
