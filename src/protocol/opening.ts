import { CLOCKS_APART_MS } from "../core/server-time.ts";
import type { Timing } from "../core/timing.ts";
import { type Claim, instantOf } from "./claim.ts";
import type { ItemView } from "./claim-observed.ts";
import { type Facts, isOver, type LeaseKind, lookAgain } from "./facts.ts";
import { LOOK, type Step, waitUntil } from "./step.ts";

/**
 * kubelet looks at a waiting container every 10-15 s; a look in between can show another state for a moment. So long an
 * acknowledged item is kept for a Pod that was parked just before.
 */
const UNPARKED_PATIENCE_MS = 20_000;

// --- 4. Acknowledge: an acknowledgement without an answer, or a Secret without key found at the start -------------

/** Of a claim whose container was not given its key yet: whose is the item, and may it be opened? */
export function beforeOpening(facts: Facts, kind: LeaseKind): Step {
  const { claim, pod } = facts;
  if (claim.record.acknowledgedAt === null) return whoseIsIt(facts);
  const ran = pod.is === "running" || (pod.is === "ended" && pod.end.startedAtMs !== null);
  // It was given its key, so an opening of ours took effect and its answer was lost.
  if (ran && claim.record.journal.use === "session" && !claim.record.gone) {
    return { do: "open", acknowledgedAt: claim.record.acknowledgedAt };
  }
  if (!mayOpen(facts)) return kind.settle(facts);
  return kind.open(facts, claim.record.acknowledgedAt, patienceMs(claim));
}

function whoseIsIt(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  // Earlier, a late acknowledgement could still strand the item.
  if (nowMs < claim.lateAckUntilMs) return { do: "wait", untilMs: claim.lateAckUntilMs };
  const item = claim.observed.item;
  if (!item || item.askedMs < claim.lateAckUntilMs) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  const acknowledgedAt = item.acknowledgedAt ?? "";
  if (!isOver(item) && acknowledgedByUs(claim, item, timing)) return { do: "own", acknowledgedAt };
  // A list that is behind may still show what was before our acknowledgement, and that one may still take effect, however late.
  const shownMs = claim.lateAckUntilMs + timing.lateAckMs + timing.listLagMs;
  const isFinal = item.state === "stopped" || item.askedMs >= shownMs;
  if (!isFinal) return nowMs < shownMs ? waitUntil(shownMs) : LOOK;
  if (isOver(item)) return { do: "drop", because: item.state };
  if (mayBeOurs(claim, item, timing)) return { do: "own", acknowledgedAt, late: true };
  return { do: "drop", because: "acknowledged by another client" };
}

/** An acknowledged_at that proves nothing: our late request, another client, or a server that keeps the first one. */
function mayBeOurs({ record: { journal } }: Readonly<Claim>, item: ItemView, timing: Timing): boolean {
  const at = instantOf(item.acknowledgedAt ?? "");
  const latestMs = journal.polledUntilMs + timing.othersReclaimMs + timing.lateAckMs + CLOCKS_APART_MS;
  return at !== null && at.fromMs <= latestMs;
}

/**
 * The evidence rule: acknowledged_at inside the window in which only our acknowledgement can have come. It ends where
 * somebody else can first have been offered the item, by the earliest time at which our poll can have been sent; our own
 * acknowledgement is sent early enough to land before that (ack-window.ts). The poll's time is by the clock of Date headers,
 * which need not be the one of the stamps: shortly before the poll, nobody can have acknowledged what it showed as queued.
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

/** Nothing is opened once a drain began; an opening that got no answer goes on, since its container may be about to start. */
function isInTime({ claim, limits, nowMs }: Facts): boolean {
  return !limits.draining || (claim.record.openingSent && nowMs < limits.drainDeadlineMs);
}

function patienceMs(claim: Readonly<Claim>): number {
  return claim.lateAckUntilMs + UNPARKED_PATIENCE_MS;
}
