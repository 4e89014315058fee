import { CLOCKS_APART_MS } from "../core/server-time.ts";
import { instantOf } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import type { Claim } from "./claim.ts";
import type { ItemView } from "./claim-observed.ts";
import { type Facts, isOver, type LeaseKind, lookAgain } from "./facts.ts";
import { LOOK, type Step, waitUntil } from "./step.ts";

/**
 * The kubelet checks a waiting container every 10-15 s, and a check can briefly show another state. An acknowledged
 * item is kept this long for a Pod that was parked just before.
 */
const UNPARKED_PATIENCE_MS = 20_000;

// --- 4. Acknowledge: an unanswered acknowledgement, or a Secret without a key that was found at the start ---------

/** The next step of a claim whose container has no key yet: find out who holds the item, then open or settle it. */
export function beforeOpening(facts: Facts, kind: LeaseKind): Step {
  const { claim, pod } = facts;
  if (claim.record.acknowledgedAt === null) return findHolder(facts);
  const ran = pod.is === "running" || (pod.is === "ended" && pod.end.startedAtMs !== null);
  // The container ran, so it got its key: our opening took effect and its answer was lost.
  if (ran && claim.record.journal.use === "session" && !claim.record.gone) {
    return { do: "open", acknowledgedAt: claim.record.acknowledgedAt };
  }
  if (!mayOpen(facts)) return kind.settle(facts);
  return kind.open(facts, claim.record.acknowledgedAt, patienceMs(claim));
}

function findHolder(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  // Before that, a late acknowledgement of ours could still take effect and strand the item.
  if (nowMs < claim.lateAckUntilMs) return { do: "wait", untilMs: claim.lateAckUntilMs };
  const item = claim.observed.item;
  if (!item || item.askedMs < claim.lateAckUntilMs) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  const acknowledgedAt = item.acknowledgedAt ?? "";
  if (!isOver(item) && acknowledgedByUs(claim, item, timing)) return { do: "own", acknowledgedAt };
  // A stale list may show the item before our acknowledgement, and a late acknowledgement may still take effect.
  const shownMs = claim.lateAckUntilMs + timing.lateAckMs + (item.isOffered ? 0 : timing.listLagMs);
  const isFinal = item.state === "stopped" || item.askedMs >= shownMs;
  if (!isFinal) return nowMs < shownMs ? waitUntil(shownMs) : LOOK;
  if (isOver(item)) return { do: "drop", because: item.state };
  if (mayBeOurs(claim, item, timing)) return { do: "own", acknowledgedAt, late: true };
  return { do: "drop", because: "acknowledged by another client" };
}

/**
 * Whether acknowledged_at leaves it open who acknowledged: our late request, another client, or an earlier one whose
 * time the server kept.
 */
function mayBeOurs({ record: { journal } }: Readonly<Claim>, item: ItemView, timing: Timing): boolean {
  const at = instantOf(item.acknowledgedAt ?? "");
  const latestMs = journal.polledUntilMs + timing.othersReclaimMs + timing.lateAckMs + CLOCKS_APART_MS;
  return at !== null && at.fromMs <= latestMs;
}

/**
 * The evidence rule: the item is ours if acknowledged_at is inside the window in which only our acknowledgement can
 * have come. The window ends when the server can first offer the item to another client, counted from the earliest time
 * at which our poll can have been sent. Our acknowledgement is sent early enough to land before that (ack-window.ts).
 *
 * The poll's time is on the clock of Date headers, which may differ from the clock that stamps acknowledgements. So the
 * window begins a little before the poll: no client can have acknowledged then what the poll showed as queued.
 */
function acknowledgedByUs(claim: Readonly<Claim>, item: ItemView, timing: Timing): boolean {
  const at = instantOf(item.acknowledgedAt ?? "");
  if (!at) return false;
  const { polledFromMs } = claim.record.journal;
  return at.beforeMs > polledFromMs - CLOCKS_APART_MS && at.beforeMs <= polledFromMs + timing.othersReclaimMs;
}

// --- 5. Open ----------------------------------------------------------------------------------------------------

function mayOpen(facts: Facts): boolean {
  const { claim, podGoneByMs, pod, nowMs } = facts;
  const wanted =
    claim.record.journal.use === "session" &&
    !claim.record.gone &&
    !claim.record.lateAck &&
    podGoneByMs === null &&
    !claim.record.ending &&
    isInTime(facts);
  return wanted && (pod.is === "parked" || (pod.is === "preparing" && nowMs < patienceMs(claim)));
}

/**
 * Once a drain began, nothing is opened. An unanswered opening is repeated, since its container may be about to start.
 */
function isInTime({ claim, limits, nowMs }: Facts): boolean {
  return !limits.draining || (claim.record.openingSent && nowMs < limits.drainDeadlineMs);
}

function patienceMs(claim: Readonly<Claim>): number {
  return claim.lateAckUntilMs + UNPARKED_PATIENCE_MS;
}
