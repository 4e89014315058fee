import { NO_HEARTBEAT } from "../work/types.ts";
import { isLater, isReacknowledged } from "./claim.ts";
import {
  type Facts,
  isReleased,
  type LeaseKind,
  lookAgain,
  outOfOurHands,
  overdueEnding,
  ranFor,
  seenSince,
  untilBeaten,
  untilLapsed,
} from "./facts.ts";
import { type HeldLease, type LostLease, maySendStop, stopWindowMs } from "./lease.ts";
import { fenceAndStop, settleItem } from "./settling.ts";
import { nextTouchMs, starting } from "./starting.ts";
import { deletePod, LOOK, STOP, type Step, waitUntil } from "./step.ts";

// The right column of the design's table: claims whose lease the operator holds, and whose program knows nothing of it.

/** lease: Operator: the operator sends the heartbeats. */
export const OPERATOR_LEASE: LeaseKind = { open, watch: watchHeld, whileDeleting, settle };

/** lease: Operator. No container starts without its lease, which the first beat takes, or one with a value that stood still. */
function open(facts: Facts, acknowledgedAt: string, patienceMs: number): Step {
  const { claim, pod, nowMs, timing } = facts;
  const {
    lease: { own: lease },
    observed: { item },
  } = claim;
  if (lease?.is === "held" && lease.state === "active") {
    if (pod.is !== "parked") return waitUntil(patienceMs);
    // A beat is on its way that buys time again, or shows that the lease is lost.
    if (!maySendStop(lease, facts, timing)) return untilBeaten(facts, lease);
    return { do: "open", acknowledgedAt };
  }
  if (lease !== null || claim.lease.memory.is === "fenced") return settle(facts);
  const unbeaten = claim.lease.memory.is === "none" && item?.state === "starting" && !isReacknowledged(claim, item);
  if (!unbeaten) {
    const step = fenceAndStop(facts);
    return step.do === "fence" ? { do: "take", expected: step.expected } : step;
  }
  if (pod.is !== "parked") return waitUntil(patienceMs);
  return item.askedMs < nowMs - timing.beatIntervalMs ? LOOK : { do: "take", expected: NO_HEARTBEAT };
}

const TOLD_TO_STOP = "the work item was told to stop";

/** Of an opened claim whose lease this process took: its container runs, or is about to. */
function watchHeld(facts: Facts): Step {
  const { claim } = facts;
  const {
    lease: { own: lease },
  } = claim;
  if (lease === null) return adopt(facts);
  const ending = (message: string): Step =>
    claim.record.ending
      ? deletePod(claim.record.ending.why, claim.record.ending.message)
      : deletePod("StoppedByUser", message);
  switch (lease.is) {
    case "lost":
      return deletePod("LeaseLost", `the lease of the work item is lost: ${lease.message}`);
    case "over":
      return ending("the work item was stopped");
    case "held":
      // It is beaten on until the container has ended, and stopped then.
      if (lease.state === "stopping" || claim.lease.gracefulStopMs !== null) return ending(TOLD_TO_STOP);
      return overdue(facts, lease) ?? served(facts);
    default:
      return lease satisfies never;
  }
}

/** Its time is over: only while the lease surely is ours may it be told to stop. Null: it has time left. */
function overdue(facts: Facts, lease: HeldLease | null): Step | null {
  const { nowMs, timing, limits } = facts;
  const { leftMs, byDuration } = timeLeft(facts);
  if (leftMs > 0) return null;
  const ending = overdueEnding(byDuration);
  const patience = nowMs + leftMs + limits.graceMs;
  if (nowMs >= patience) return deletePod(...ending);
  if (lease === null) return null;
  if (maySendStop(lease, facts, timing)) return { do: "stop", force: false };
  return untilBeaten(facts, lease, patience);
}

function timeLeft(facts: Facts): { leftMs: number; byDuration: boolean } {
  const { pod, nowMs, limits } = facts;
  const overdueMs =
    pod.is === "running" ? limits.maxDurationMs - ranFor(facts, pod.startedAtMs) : Number.POSITIVE_INFINITY;
  const drainMs = limits.drainDeadlineMs - nowMs;
  return { leftMs: Math.min(overdueMs, drainMs), byDuration: overdueMs <= 0 };
}

function served(facts: Facts): Step {
  const { claim, pod, nowMs, timing } = facts;
  const { leftMs } = timeLeft(facts);
  if (pod.is !== "running") {
    const step = starting(facts);
    return step.do === "wait" ? waitUntil(step.untilMs ?? nowMs + leftMs, nowMs + leftMs) : step;
  }
  const touchAt = facts.podAssigned ? Number.POSITIVE_INFINITY : nextTouchMs(claim, timing);
  if (nowMs >= touchAt) return { do: "touch" };
  const provesInMs = claim.observed.firstBeatSeen
    ? Number.POSITIVE_INFINITY
    : timing.servesAfterMs - ranFor(facts, pod.startedAtMs);
  return waitUntil(touchAt, nowMs + leftMs, provesInMs > 0 ? nowMs + provesInMs : Number.POSITIVE_INFINITY);
}

/**
 * Of an opened claim that an earlier process left: its lease is ours to keep only if its value stood still since we began
 * (M): had somebody else come after a lapse, he would have beaten in that time. The first look waits until the last beat of
 * the process before has surely landed. Moved, or acknowledged again: the lease is lost.
 */
function adopt(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  const {
    observed: { item },
    lease: { memory },
  } = claim;
  const late = overdue(facts, null);
  if (late) return late;
  const landedMs = (claim.othersUntilMs ?? Number.NEGATIVE_INFINITY) + timing.requestBoundMs + timing.marginMs;
  if (nowMs < landedMs) return waitUntil(landedMs);
  if (!item || item.askedMs < landedMs) return LOOK;
  if (item.state === "unknown" || item.state === "starting") return lookAgain(facts);
  if (item.state === "stopped") return deletePod("StoppedByUser", "the work item was stopped");
  const because = outOfOurHands(claim, item);
  if (because !== null) return { do: "lose", message: `the work item is ${because}` };
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  // No value is compared any more: beaten at once, so that the container has its grace.
  if (item.state === "stopping") return { do: "take", expected: value };
  if (memory.is !== "snapshot") return { do: "snapshot", value };
  // An older one is from a list that is behind.
  if (isLater(value, memory.value)) return { do: "lose", message: "somebody else beats the work item" };
  const quietUntil = memory.sinceMs + timing.beatIntervalMs + timing.quietMarginMs;
  return nowMs < quietUntil ? waitUntil(quietUntil) : { do: "take", expected: memory.value };
}

/** The Pod is being deleted. A lease that an earlier process kept is kept until the container has ended. */
function whileDeleting(facts: Facts, goneByMs: number): Step {
  if (facts.claim.lease.own !== null) return waitUntil(goneByMs);
  const step = adopt(facts);
  if (step.do === "wait") return waitUntil(Math.min(step.untilMs ?? goneByMs, goneByMs));
  return step.do === "delete-pod" ? waitUntil(goneByMs) : step;
}

/** The container is over, or will not be started, and we had the lease: no value has to stand still any more. */
function settle(facts: Facts): Step {
  const {
    lease: { own: lease },
  } = facts.claim;
  switch (lease?.is) {
    case undefined:
      return settleItem(facts);
    case "over":
      return { do: "settled", because: "stopped" };
    case "lost":
      return lease.by === "refusal" ? { do: "settled", because: lease.message } : afterSilence(facts, lease);
    case "held":
      return endHeld(facts, lease);
    default:
      return lease satisfies never;
  }
}

function endHeld(facts: Facts, lease: HeldLease): Step {
  const { timing } = facts;
  if (lease.state === "stopping") return STOP;
  // A lease too short for a stop lapses, as one of a session that died without a word and is to be run again.
  if (isReleased(facts) || stopWindowMs(lease.ttlMs, timing) <= 0) return { do: "let-go" };
  if (maySendStop(lease, facts, timing)) return STOP;
  return untilBeaten(facts, lease);
}

/**
 * Nobody answered for a TTL: whose the item is, if anybody's, only the list knows. It is never fenced again. What was told
 * to stop while it was ours still has to be stopped: a stopping item may stay so for ever.
 */
function afterSilence(facts: Facts, lease: LostLease): Step {
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  const shownMs = lease.lapsedMs + facts.timing.listLagMs;
  if (item.state === "active" && item.askedMs < shownMs) return untilLapsed(facts, item, shownMs);
  return { do: "settled", because: "somebody else has its lease" };
}
