import { NO_HEARTBEAT } from "../work/types.ts";
import type { Claim, Ending, ItemView } from "./claim.ts";
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

/** A Pod that is still there so long after its deletion should have ended is on a node that does not answer. */
export const POD_OVERDUE_MS = 30_000;

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
  const parked = facts.pod.is === "parked" && facts.podGoneByMs === null;
  const mayOpen = claim.journal.use === "session" && parked && !limits.draining && !claim.recordGone;
  // `active` already: somebody beats an item whose container we never started. It is settled, not opened.
  const state = claim.item?.state;
  if (mayOpen && claim.memory.is === "none" && (state === undefined || state === "starting")) {
    return { do: "open", acknowledgedAt: ours };
  }
  return settle(facts);
}

/** The evidence rule: acknowledged_at inside the window in which only our acknowledgement can have come. */
function acknowledgedByUs(claim: Readonly<Claim>, item: ItemView, timing: Timing): boolean {
  const at = Date.parse(item.acknowledgedAt ?? "");
  if (Number.isNaN(at)) return false;
  const { polledFromMs, polledUntilMs } = claim.journal;
  return at >= polledFromMs && at <= polledUntilMs + timing.othersReclaimMs;
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
  if (!facts.podAssigned || claim.touchedMs === null) return { do: "touch" };
  if (pod.is === "parked") {
    // kubelet's watches of Secrets and of Pods are not ordered: it may have looked before it saw the key.
    const pauses = timing.touchAgainMs;
    const pause = pauses[Math.min(claim.touches - 1, pauses.length - 1)] ?? 0;
    const again = claim.touchedMs + pause;
    return nowMs >= again ? { do: "touch" } : { do: "wait", untilMs: Math.min(again, patience) };
  }
  return { do: "wait", untilMs: patience };
}

// --- 6. Watch ---------------------------------------------------------------------------------------------------

function running(facts: Facts, startedAtMs: number): Step {
  const { claim, nowMs, wallMs, timing, limits } = facts;
  const item = claim.item;
  const ranMs = wallMs - startedAtMs;
  const until = (...times: number[]): Step => ({ do: "wait", untilMs: Math.min(...times) });
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
  if (item.state === "starting") {
    if (ranMs < limits.firstBeatTimeoutMs) return until(nowMs + limits.firstBeatTimeoutMs - ranMs);
    // Fence, stop, then delete: a stock worker that gets SIGTERM before its first beat posts a stop of its own.
    return { do: "fence", expected: NO_HEARTBEAT };
  }
  const overdueMs = limits.maxDurationMs - ranMs;
  const drainMs = limits.drainDeadlineMs - nowMs;
  if (overdueMs <= 0 || drainMs <= 0) {
    // Only the holder may be told to stop: active, acknowledged as journaled, and its container runs.
    if (item.askedMs < nowMs - timing.observeFirstBeatMs) return LOOK;
    if (claim.gracefulStopMs === null) return { do: "stop", force: false };
    const patience = claim.gracefulStopMs + limits.graceMs;
    return nowMs < patience ? until(patience) : deletePod(...overdueEnding(overdueMs <= 0));
  }
  return until(nowMs + overdueMs, nowMs + drainMs);
}

function overdueEnding(byDuration: boolean): [Ending, string] {
  return byDuration
    ? ["MaxDuration", "the session reached maxDurationSeconds"]
    : ["EnvironmentDeleted", "the Environment was deleted and deletionGraceSeconds are over"];
}

/** Acknowledged again since: the item has gone back to the queue in between and is somebody else's now. */
function isReacknowledged(claim: Readonly<Claim>, item: ItemView): boolean {
  return claim.acknowledgedAt !== null && item.acknowledgedAt !== null && item.acknowledgedAt !== claim.acknowledgedAt;
}

// --- Settle: fence, then stop -----------------------------------------------------------------------------------

function settle(facts: Facts): Step {
  const { claim, nowMs } = facts;
  const item = claim.item;
  // What was seen before the end says nothing of what the worker's own stop did.
  if (!item || item.askedMs < (claim.endedMs ?? Number.NEGATIVE_INFINITY)) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  if (isOver(item)) return { do: "settled", because: item.state };
  if (isReacknowledged(claim, item)) return { do: "settled", because: "acknowledged by somebody else" };
  if (item.state === "stopping") return { do: "stop", force: true };
  if (item.state === "starting") {
    // Seen before our beat landed, or the list lags behind it.
    if (claim.memory.is === "fenced" && item.askedMs >= claim.memory.beatSentMs) return lookAgain(facts);
    return claim.memory.is === "fenced" ? LOOK : { do: "fence", expected: NO_HEARTBEAT };
  }
  const stop = fenced(facts);
  if (stop) return stop;
  const value = item.latestHeartbeatAt ?? NO_HEARTBEAT;
  if (claim.memory.is !== "snapshot" || claim.memory.value !== value) return { do: "snapshot", value };
  const quietUntil = claim.memory.sinceMs + facts.timing.beatIntervalMs + facts.timing.quietMarginMs;
  if (nowMs < quietUntil) return { do: "wait", untilMs: quietUntil };
  return { do: "fence", expected: value };
}

/** With the lease in our hands: list once more, then stop, as long as the lease that our beat bought surely runs. */
function fenced(facts: Facts): Step | null {
  const { claim, nowMs, timing } = facts;
  if (claim.memory.is !== "fenced") return null;
  const { beatSentMs, ttlMs } = claim.memory;
  if (nowMs > beatSentMs + ttlMs - timing.requestBoundMs - timing.marginMs) return null;
  if (!claim.item || claim.item.askedMs < beatSentMs) return LOOK;
  return { do: "stop", force: true };
}

/** A look that decided nothing: the next one not before a pause. */
function lookAgain({ claim, nowMs, timing }: Facts): Step {
  const again = (claim.item?.askedMs ?? 0) + timing.settleLookMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

function deletePod(why: Ending, message: string): Step {
  return { do: "delete-pod", why, message };
}
