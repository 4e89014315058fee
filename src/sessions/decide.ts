import { NO_HEARTBEAT } from "../work/types.ts";
import { type Claim, type Ending, type ItemView, instantOf, isReacknowledged } from "./claim.ts";
import type { PodState } from "./pod-state.ts";
import type { Timing } from "./timing.ts";

/** What a claim's next step is judged by. `nowMs` and all times of the claim are the monotonic clock; `wallMs` is not. */
export interface Facts {
  readonly claim: Readonly<Claim>;
  readonly pod: PodState | { readonly is: "gone" };
  /** Monotonic: a Pod that is being deleted should be gone by then; null while nobody deletes it. */
  readonly podGoneByMs: number | null;
  /** The Pod's labels say that it was touched. */
  readonly podAssigned: boolean;
  readonly nowMs: number;
  readonly wallMs: number;
  readonly limits: Limits;
  readonly timing: Timing;
}

/** An Environment's times in milliseconds. */
export interface Limits {
  readonly firstBeatTimeoutMs: number;
  readonly maxDurationMs: number;
  readonly graceMs: number;
  /** The Environment is being deleted. */
  readonly draining: boolean;
  /** Monotonic; running sessions are stopped then. Infinity while not draining. */
  readonly drainDeadlineMs: number;
}

/** The next step of a claim. Names follow the model: open, touch, fence, stop, drop, settle. */
export type Step =
  /** Nothing until `untilMs` (monotonic), or until something changes when null. */
  | { readonly do: "wait"; readonly untilMs: number | null }
  /** Read the item with the list call. */
  | { readonly do: "look" }
  /** Our acknowledgement took effect: keep that in mind. */
  | { readonly do: "own"; readonly acknowledgedAt: string }
  /** Give the Secret its key, and touch the Pod. */
  | { readonly do: "open"; readonly acknowledgedAt: string }
  /** Change the Pod, so that kubelet looks at once. */
  | { readonly do: "touch" }
  /** Remember the item's last heartbeat, to see whether it stands still. */
  | { readonly do: "snapshot"; readonly value: string }
  /** Take the lease with a heartbeat of our own, so that a stop can only end what is ours. */
  | { readonly do: "fence"; readonly expected: string }
  | { readonly do: "stop"; readonly force: boolean }
  | { readonly do: "delete-pod"; readonly why: Ending; readonly message: string }
  /** Never ours, or not any more before it was opened: delete the Secret; the slot is free again. */
  | { readonly do: "drop"; readonly because: string }
  /** The item is out of our hands: delete the Secret, mark the Pod finished. */
  | { readonly do: "settled"; readonly because: string };

/**
 * kubelet looks at a waiting container every 10-15 s; a look in between can show another state for a moment. So long an
 * acknowledged item is kept for a Pod that was parked just before.
 */
const UNPARKED_PATIENCE_MS = 20_000;

/**
 * What was seen longer ago is looked at anew before anything is done to the item: a call that keeps being refused may
 * rest on a view that is wrong by now. Longer than the slowest walk through the list.
 */
const VIEW_MAX_AGE_MS = 300_000;

/** Of the pause between looks: 5 s up to about 5 min. */
const MAX_DOUBLINGS = 6;

const FOREVER = { do: "wait", untilMs: null } as const;
const LOOK = { do: "look" } as const;

/** Decides on the next step of a claim; pure. */
export function nextStep(facts: Facts): Step {
  const { claim } = facts;
  if (claim.claiming) return FOREVER;
  if (!claim.journal.opened) return beforeOpening(facts);
  if (facts.pod.is === "ended" || facts.pod.is === "gone" || claim.end !== null) return settle(facts);
  // Going already: its container's end is what comes next.
  if (facts.podGoneByMs !== null) return { do: "wait", untilMs: facts.podGoneByMs };
  if (facts.pod.is === "running") return running(facts, facts.pod.startedAtMs);
  return starting(facts);
}

// --- 4. Acknowledge: an acknowledgement without an answer, or a Secret without key found at the start -------------

function beforeOpening(facts: Facts): Step {
  const { claim, nowMs, limits } = facts;
  const ours = claim.acknowledgedAt;
  if (ours === null) {
    // Earlier, a late acknowledgement could still strand the item.
    if (nowMs < claim.lateAckUntilMs) return { do: "wait", untilMs: claim.lateAckUntilMs };
    const item = claim.item;
    if (!item || item.askedMs < claim.lateAckUntilMs) return LOOK;
    if (item.state === "unknown") return lookAgain(facts);
    if (isOver(item)) return { do: "drop", because: item.state };
    if (!acknowledgedByUs(claim, item, facts.timing)) return { do: "drop", because: "acknowledged by somebody else" };
    return { do: "own", acknowledgedAt: item.acknowledgedAt ?? "" };
  }
  const { pod } = facts;
  const ran = pod.is === "running" || (pod.is === "ended" && pod.end.startedAtMs !== null);
  // It was given its key, so an opening of ours took effect and its answer was lost.
  if (ran && claim.journal.use === "session" && !claim.recordGone) return { do: "open", acknowledgedAt: ours };
  const item = claim.item;
  const mayOpen =
    claim.journal.use === "session" && !limits.draining && !claim.recordGone && facts.podGoneByMs === null;
  const untouched = claim.memory.is === "none" && item?.state === "starting" && !isReacknowledged(claim, item);
  // `active` already: somebody beats an item whose container we never started. It is settled, not opened.
  if (!mayOpen || !untouched) return settle(facts);
  if (pod.is === "parked") {
    return item.askedMs < nowMs - facts.timing.beatIntervalMs ? LOOK : { do: "open", acknowledgedAt: ours };
  }
  const patience = claim.lateAckUntilMs + UNPARKED_PATIENCE_MS;
  if (pod.is === "preparing" && nowMs < patience) return { do: "wait", untilMs: patience };
  return settle(facts);
}

/**
 * The evidence rule: acknowledged_at inside the window in which only our acknowledgement can have come. It ends where
 * somebody else can first have been offered the item, by the earliest time at which our poll can have been sent; our own
 * acknowledgement is sent early enough to land before that (claim-loop.ts).
 */
function acknowledgedByUs(claim: Readonly<Claim>, item: ItemView, timing: Timing): boolean {
  const at = instantOf(item.acknowledgedAt ?? "");
  if (!at) return false;
  const { polledFromMs } = claim.journal;
  return at.beforeMs > polledFromMs && at.beforeMs <= polledFromMs + timing.othersReclaimMs;
}

/** Out of anybody's hands: nothing of ours is left to do. */
function isOver(item: ItemView): boolean {
  return item.state === "queued" || item.state === "stopped" || item.state === "absent";
}

// --- 5. Open: the key is in the Secret, the container does not run yet ------------------------------------------

function starting(facts: Facts): Step {
  const { claim, pod, nowMs, timing, limits } = facts;
  if (pod.is === "preparing" && pod.problem) {
    return deletePod("StartFailed", `the container does not start: ${pod.problem.reason}: ${pod.problem.message}`);
  }
  const openedMs = claim.openedMs ?? nowMs;
  const patience = openedMs + limits.firstBeatTimeoutMs;
  if (nowMs >= patience) {
    return deletePod(
      "StartFailed",
      "the container did not start within firstBeatTimeoutSeconds of being given its session",
    );
  }
  const needsTouch = pod.is === "parked" || !facts.podAssigned || claim.touchedMs === null;
  if (!needsTouch) return { do: "wait", untilMs: patience };
  const touchAt = nextTouchMs(claim, timing);
  return nowMs >= touchAt ? { do: "touch" } : { do: "wait", untilMs: Math.min(touchAt, patience) };
}

/** kubelet's watches of Secrets and of Pods are not ordered: it may have looked before it saw the key, so touch again. */
function nextTouchMs(claim: Readonly<Claim>, { touchAgainMs }: Timing): number {
  if (claim.touchedMs === null) return Number.NEGATIVE_INFINITY;
  return claim.touchedMs + (touchAgainMs[Math.min(claim.touches, touchAgainMs.length) - 1] ?? 0);
}

// --- 6. Watch ---------------------------------------------------------------------------------------------------

function running(facts: Facts, startedAtMs: number): Step {
  const { claim, nowMs, timing, limits } = facts;
  const item = claim.item;
  const touchAt = facts.podAssigned ? Number.POSITIVE_INFINITY : nextTouchMs(claim, timing);
  const until = (...times: number[]): Step => ({ do: "wait", untilMs: Math.min(touchAt, ...times) });
  // kubelet looked by itself: the Pod still has to say whose it is, and to get its deadline.
  if (nowMs >= touchAt) return { do: "touch" };
  if (claim.ending?.why === "NoFirstBeat") {
    const step = settle(facts);
    return step.do === "settled" ? deletePod("NoFirstBeat", claim.ending.message) : step;
  }
  if (!item || item.state === "unknown") return until(nowMs + timing.observeFirstBeatMs);

  if (isOver(item) || isReacknowledged(claim, item)) {
    // The worker finds out by its next beat and leaves by itself.
    const since = claim.lostSinceMs ?? nowMs;
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
    const patience = (claim.stoppingSinceMs ?? nowMs) + limits.graceMs;
    if (nowMs < patience) return until(patience);
    const why = claim.ending?.why ?? "StoppedByUser";
    return deletePod(
      why,
      claim.ending?.message ?? "the work item was told to stop and the container did not leave within its grace",
    );
  }
  const ranMs = ranFor(facts, startedAtMs);
  const overdueMs = limits.maxDurationMs - ranMs;
  const drainMs = limits.drainDeadlineMs - nowMs;
  if (item.state === "starting") {
    const leftMs = Math.min(limits.firstBeatTimeoutMs - ranMs, overdueMs, drainMs);
    if (leftMs > 0) return until(nowMs + leftMs);
    // Fence, stop, then delete: a stock worker that gets SIGTERM before its first beat posts a stop of its own.
    return { do: "fence", expected: NO_HEARTBEAT };
  }
  const leftMs = Math.min(overdueMs, drainMs);
  const aheadMs = timing.beatIntervalMs + timing.observeFirstBeatMs;
  if (leftMs > aheadMs) return until(nowMs + leftMs - aheadMs);
  return nearItsEnd(facts, item, leftMs, overdueEnding(overdueMs <= 0));
}

/**
 * Its time is over, or soon will be. Only the side that surely holds the lease may be told to stop: our container runs, and
 * its last heartbeat moved between two looks, the first of them not long ago. So it is looked at a beat interval ahead. One
 * that does not beat loses its lease by itself.
 */
function nearItsEnd(facts: Facts, item: ItemView, leftMs: number, ending: [Ending, string]): Step {
  const { claim, nowMs, timing, limits } = facts;
  const { memory } = claim;
  const endsMs = nowMs + leftMs;
  const patience = (claim.gracefulStopMs ?? endsMs) + limits.graceMs;
  if (nowMs >= patience) return deletePod(...ending);
  if (claim.gracefulStopMs !== null) return { do: "wait", untilMs: patience };
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot") return { do: "snapshot", value };
  if (item.askedMs <= memory.sinceMs) {
    const again = memory.sinceMs + timing.observeFirstBeatMs;
    return nowMs >= again ? LOOK : { do: "wait", untilMs: Math.min(again, patience) };
  }
  const heldUntil = memory.sinceMs + timing.beatIntervalMs;
  if (memory.value === value || nowMs >= heldUntil) return { do: "snapshot", value };
  return leftMs <= 0 ? { do: "stop", force: false } : { do: "wait", untilMs: Math.min(endsMs, heldUntil) };
}

/**
 * How long the container has run. Its start is told by the node's clock, which may be off: it cannot have started before
 * this process gave it its key, nor in the future.
 */
function ranFor({ claim, nowMs, wallMs }: Facts, startedAtMs: number): number {
  const saidMs = wallMs - startedAtMs;
  const openedAgoMs = nowMs - (claim.openedMs ?? nowMs);
  // After a restart `openedMs` is the time of the restart, and no touch is known.
  const openedHere = claim.touchedMs !== null;
  const off = startedAtMs <= 0 || saidMs < 0 || (openedHere && saidMs > openedAgoMs);
  return off ? openedAgoMs : saidMs;
}

function overdueEnding(byDuration: boolean): [Ending, string] {
  return byDuration
    ? ["MaxDuration", "the session reached maxDurationSeconds"]
    : ["EnvironmentDeleted", "the Environment was deleted and deletionGraceSeconds are over"];
}

// --- Settle: fence, then stop -----------------------------------------------------------------------------------

function settle(facts: Facts): Step {
  const { claim, nowMs, timing } = facts;
  const { item, memory } = claim;
  if (memory.is === "refused" && nowMs < memory.atMs + timing.settleLookMs) {
    return { do: "wait", untilMs: memory.atMs + timing.settleLookMs };
  }
  // What was seen before the end says nothing of what the worker's own stop did; before our beat, nothing of the beat.
  const since = Math.max(claim.endedMs ?? Number.NEGATIVE_INFINITY, memory.is === "fenced" ? memory.beatSentMs : 0);
  if (!item || item.askedMs < since) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  if (isOver(item)) return { do: "settled", because: item.state };
  if (isReacknowledged(claim, item)) return { do: "settled", because: "acknowledged by somebody else" };
  if (item.askedMs < nowMs - VIEW_MAX_AGE_MS) return LOOK;
  if (item.state === "stopping") return { do: "stop", force: true };
  const held = isHeld(facts);
  // Our beat is not in the list yet.
  if (item.state === "starting") return held ? lookAgain(facts) : { do: "fence", expected: NO_HEARTBEAT };
  if (held) return { do: "stop", force: true };
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (memory.is !== "snapshot" || memory.value !== value) return { do: "snapshot", value };
  const quietUntil = memory.sinceMs + timing.beatIntervalMs + timing.quietMarginMs;
  return nowMs < quietUntil ? { do: "wait", untilMs: quietUntil } : { do: "fence", expected: value };
}

/** The lease that our beat bought surely runs until a stop that is sent now has landed. */
function isHeld({ claim: { memory }, nowMs, timing }: Facts): boolean {
  if (memory.is !== "fenced") return false;
  return nowMs <= memory.beatSentMs + memory.ttlMs - timing.requestBoundMs - timing.marginMs;
}

/**
 * A look that decided nothing: the next one not before a pause, which doubles while looks cannot be brought to their end:
 * a list that is longer than a walk will not be shorter in five seconds, and every page is a read of the organization's.
 */
function lookAgain({ claim, nowMs, timing }: Facts): Step {
  const pauseMs = timing.settleLookMs * 2 ** Math.min(MAX_DOUBLINGS, Math.max(0, claim.unknowns - 1));
  const again = (claim.item?.askedMs ?? 0) + pauseMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

function deletePod(why: Ending, message: string): Step {
  return { do: "delete-pod", why, message };
}
