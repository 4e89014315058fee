import { isLater } from "../core/text.ts";
import { NO_HEARTBEAT } from "../work/types.ts";
import { isReacknowledged } from "./claim.ts";
import {
  assignAtMs,
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
import { starting } from "./starting.ts";
import { deletePod, LOOK, STOP, type Step, waitUntil } from "./step.ts";

// The right column of the design's table: claims whose lease the operator holds, without their program knowing it.

/** lease: Operator: the operator sends the heartbeats. */
export const OPERATOR_LEASE: LeaseKind = { open, watch: watchHeld, whileDeleting, settle };

/**
 * lease: Operator. No container starts before the operator holds its lease. The first heartbeat takes it, or one that
 * echoes a value that has not changed for long enough.
 */
function open(facts: Facts, acknowledgedAt: string, patienceMs: number): Step {
  const { claim, pod, nowMs, timing } = facts;
  const { own: lease } = claim.lease;
  const { item } = claim.observed;
  if (lease?.is === "held" && lease.state === "active") {
    if (pod.is !== "parked") return waitUntil(patienceMs);
    // The heartbeat that is due extends the lease, or shows that it is lost.
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

/** The next step of an opened claim whose lease this process took: its container runs, or is about to. */
function watchHeld(facts: Facts): Step {
  const { claim } = facts;
  const { own: lease } = claim.lease;
  // The program of a woken Pod may run. It must not look asleep for as long as an adoption takes.
  if (lease === null) return claim.turn > 1 && facts.nowMs >= assignAtMs(facts) ? { do: "touch" } : adopt(facts);
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
      // Heartbeats continue until the container has ended; then the item is stopped.
      if (lease.state === "stopping" || claim.lease.gracefulStopMs !== null) return ending(TOLD_TO_STOP);
      return overdue(facts, lease) ?? withTimeLeft(facts, lease);
    default:
      return lease satisfies never;
  }
}

/**
 * The step for a session whose time has ended: a stop, but only while the lease is surely ours. Null: it has time
 * left.
 */
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

function withTimeLeft(facts: Facts, lease: HeldLease): Step {
  const { claim, pod, nowMs, timing } = facts;
  const { leftMs } = timeLeft(facts);
  if (pod.is !== "running") {
    const step = starting(facts);
    // The container must not start without the lease, not even by a repeated line.
    if (step.do === "deliver" && !maySendStop(lease, facts, timing)) return untilBeaten(facts, lease, nowMs + leftMs);
    return step.do === "wait" ? waitUntil(step.untilMs ?? nowMs + leftMs, nowMs + leftMs) : step;
  }
  const touchAt = assignAtMs(facts);
  if (nowMs >= touchAt) return { do: "touch" };
  const provesInMs = claim.observed.firstBeatSeen
    ? Number.POSITIVE_INFINITY
    : timing.servesAfterMs - ranFor(facts, pod.startedAtMs);
  return waitUntil(touchAt, nowMs + leftMs, provesInMs > 0 ? nowMs + provesInMs : Number.POSITIVE_INFINITY);
}

/**
 * Adopts the lease of an opened claim that an earlier process left. The lease is ours to keep only if its heartbeat
 * value has not changed since this process began to watch it (M): another client that got it after a lapse would have
 * sent a heartbeat in that time. The first read waits until the last heartbeat of the earlier process has surely
 * landed. If the value changes, or the item is acknowledged again, the lease is lost.
 */
function adopt(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  const { item } = claim.observed;
  const { memory } = claim.lease;
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
  // The server no longer compares values: a heartbeat can be sent immediately, so that the container gets its grace.
  if (item.state === "stopping") return { do: "take", expected: value };
  if (memory.is !== "snapshot") return { do: "snapshot", value };
  // An older value is from a stale list.
  if (isLater(value, memory.value)) return { do: "lose", message: "another client sends heartbeats for the work item" };
  const quietUntil = memory.sinceMs + timing.beatIntervalMs + timing.quietMarginMs;
  return nowMs < quietUntil ? waitUntil(quietUntil) : { do: "take", expected: memory.value };
}

/**
 * While the Pod is being deleted, a lease that an earlier process held is adopted and kept until the container has
 * ended.
 */
function whileDeleting(facts: Facts, goneByMs: number): Step {
  if (facts.claim.lease.own !== null) return waitUntil(goneByMs);
  const step = adopt(facts);
  if (step.do === "wait") return waitUntil(Math.min(step.untilMs ?? goneByMs, goneByMs));
  return step.do === "delete-pod" ? waitUntil(goneByMs) : step;
}

/** The container has ended, or won't start, and this process had the lease: it need not wait for an unchanged value. */
function settle(facts: Facts): Step {
  const { own: lease } = facts.claim.lease;
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
  // A lease that is too short for a stop lapses, like that of a killed session that is to run again.
  if (isReleased(facts) || stopWindowMs(lease.ttlMs, timing) <= 0) return { do: "let-go" };
  if (maySendStop(lease, facts, timing)) return STOP;
  return untilBeaten(facts, lease);
}

/**
 * The Work API did not answer for a whole TTL, so only the list shows who holds the item. The item is never fenced
 * again. If it was told to stop while it was ours, it must still be stopped: otherwise it may stay `stopping` forever.
 */
function afterSilence(facts: Facts, lease: LostLease): Step {
  const item = seenSince(facts);
  if ("do" in item) return item;
  if (item.state === "stopping") return STOP;
  const shownMs = lease.lapsedMs + facts.timing.listLagMs;
  if (item.state === "active" && item.askedMs < shownMs) return untilLapsed(facts, item, shownMs);
  return { do: "settled", because: "another client holds its lease" };
}
