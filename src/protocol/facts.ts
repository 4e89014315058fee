import type { Timing } from "../core/timing.ts";
import type { End, PodState } from "../pods/pod-state.ts";
import { type Claim, isLater, isReacknowledged } from "./claim.ts";
import type { Memory } from "./claim-lease.ts";
import type { ItemView } from "./claim-observed.ts";
import { type HeldLease, leaseEndMs } from "./lease.ts";
import { type Ending, LOOK, type Step, waitUntil } from "./step.ts";

/**
 * What a claim's next step is judged by. `nowMs` and all times of the claim are the monotonic clock; `wallMs`, our own wall
 * clock at the same instant, is what the times of beats are held against; `clusterMs`, the API server's, what objects tell.
 */
export interface Facts {
  readonly claim: Readonly<Claim>;
  readonly pod: PodState | { readonly is: "gone" };
  /** Monotonic: a Pod that is being deleted should be gone by then; null while nobody deletes it. */
  readonly podGoneByMs: number | null;
  /** The Pod's labels say that it was touched. */
  readonly podAssigned: boolean;
  readonly nowMs: number;
  readonly wallMs: number;
  readonly clusterMs: number;
  readonly limits: Limits;
  readonly timing: Timing;
}

/** An Environment's times in milliseconds, and what it wants. */
export interface Limits {
  readonly firstBeatTimeoutMs: number;
  readonly maxDurationMs: number;
  readonly graceMs: number;
  /** `Release` only while this item has not died too often already. */
  readonly onPodFailure: "Stop" | "Release";
  /** The Environment is being deleted. */
  readonly draining: boolean;
  /** Monotonic; running sessions are stopped then. Infinity while not draining. */
  readonly drainDeadlineMs: number;
}

/** What differs between claims whose program sends the heartbeats and those for which the operator does. */
export interface LeaseKind {
  /** Of an acknowledged claim whose container may start; `patienceMs`: how long to wait for a Pod that is not parked. */
  open(facts: Facts, acknowledgedAt: string, patienceMs: number): Step;
  /** Of an opened claim whose container runs, or is about to. */
  watch(facts: Facts): Step;
  /** The same while its Pod is being deleted; `goneByMs`: when the Pod should be gone. */
  whileDeleting(facts: Facts, goneByMs: number): Step;
  /** Of a claim whose container has ended, or will not be started. */
  settle(facts: Facts): Step;
}

/**
 * How long a container whose time is over may go on while it cannot be told to stop yet: its grace, but at least until its
 * next beat is seen, which may come two looks and the list's lag after the last one has stopped to prove anything. Deleted
 * before, its item would be queued again. The third look is slack.
 */
export function stopPatienceMs(
  graceMs: number,
  { observeFirstBeatMs, listLagMs }: Pick<Timing, "observeFirstBeatMs" | "listLagMs">,
): number {
  return Math.max(graceMs, 3 * observeFirstBeatMs + listLagMs);
}

/** What a snapshot leaves in memory: what was seen, as of when the list was asked for. */
export function remembered(
  { value, beatenSinceMs }: Extract<Step, { do: "snapshot" }>,
  { observed: { item } }: Claim,
  nowMs: number,
): Memory {
  const snapshot = { is: "snapshot", value, sinceMs: item?.askedMs ?? nowMs } as const;
  return beatenSinceMs === undefined ? snapshot : { ...snapshot, beatenSinceMs };
}

/** Why a session ends whose time is over. */
export function overdueEnding(byDuration: boolean): [Ending, string] {
  return byDuration
    ? ["MaxDuration", "the session reached maxDurationSeconds"]
    : ["EnvironmentDeleted", "the Environment was deleted and deletionGraceSeconds are over"];
}

/** Out of anybody's hands: nothing of ours is left to do. */
export function isOver(item: ItemView): boolean {
  return item.state === "queued" || item.state === "stopped" || item.state === "absent";
}

/** Why the item is no matter of ours any more; null: it is. */
export function outOfOurHands(claim: Readonly<Claim>, item: ItemView): string | null {
  if (isOver(item)) return item.state;
  return isReacknowledged(claim, item) ? "acknowledged by somebody else" : null;
}

/**
 * How long the container has run. Its start is told by the node's clock, which may be off: it cannot have started while this
 * process still saw it wait, nor in the future. Where neither is known, it runs since its key was found.
 */
export function ranFor({ claim, nowMs, clusterMs }: Facts, startedAtMs: number): number {
  const saidMs = clusterMs - startedAtMs;
  const isOff =
    startedAtMs <= 0 || saidMs < 0 || (claim.observed.waitedMs !== null && saidMs > nowMs - claim.observed.waitedMs);
  return isOff ? nowMs - (claim.observed.waitedMs ?? claim.record.openedMs ?? nowMs) : saidMs;
}

/**
 * onPodFailure: Release, of a session that never started or whose container died without a word. One that Berth itself
 * ended is not released: it would only come back.
 */
export function isReleased({ claim, limits }: Pick<Facts, "claim" | "limits">): boolean {
  // Perhaps another client's: no stop may end it.
  if (claim.record.lateAck) return true;
  if (limits.onPodFailure !== "Release" || claim.record.journal.use !== "session") return false;
  if (claim.record.ending !== null && claim.record.ending.why !== "StartFailed") return false;
  return claim.observed.end === null ? !limits.draining : diedWithoutAWord(claim.observed.end);
}

/** 128 + SIGKILL: no program hears of that, so nobody told the item. */
const EXIT_SIGKILL = 137;

/** What did not end by itself, nor by a signal that it could handle. A Pod's deadline is Berth's own. */
function diedWithoutAWord({ cause, exitCode }: End): boolean {
  if (cause === "DeadlineExceeded") return false;
  return exitCode === null || exitCode === EXIT_SIGKILL || cause === "StartFailed";
}

/** Of the pause between looks: 5 s up to about 5 min. */
const MAX_DOUBLINGS = 6;

/**
 * What was seen longer ago is looked at anew before anything is done to the item: a call that keeps being refused may
 * rest on a view that is wrong by now. Longer than the slowest walk through the list.
 */
const VIEW_MAX_AGE_MS = 300_000;

/**
 * A look that decided nothing: the next one not before a pause, which doubles while looks cannot be brought to their end:
 * a list that is longer than a walk will not be shorter in five seconds, and every page is a read of the organization's.
 */
export function lookAgain({ claim, nowMs, timing }: Facts): Step {
  const pauseMs = timing.settleLookMs * 2 ** Math.min(MAX_DOUBLINGS, Math.max(0, claim.observed.unknowns - 1));
  const again = (claim.observed.item?.askedMs ?? 0) + pauseMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

/** Waits for a lease to lapse, until `lapsedMs` if that is known, and looks less and less often. */
export function untilLapsed({ claim, nowMs, timing }: Facts, item: ItemView, lapsedMs: number | null): Step {
  const agoMs = item.askedMs - (claim.observed.endedMs ?? claim.lateAckUntilMs);
  const pauseMs = Math.min(VIEW_MAX_AGE_MS, Math.max(timing.settleLookMs, agoMs));
  const again = lapsedMs !== null && lapsedMs > nowMs ? lapsedMs : item.askedMs + pauseMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

/** The item as it was seen since the container's end and since our beat, and still is ours; or what must come first. */
export function seenSince(facts: Facts): ItemView | Step {
  const { claim, nowMs, timing } = facts;
  const {
    observed: { item },
    lease: { memory },
  } = claim;
  if (memory.is === "refused" && nowMs < memory.atMs + timing.settleLookMs) {
    return { do: "wait", untilMs: memory.atMs + timing.settleLookMs };
  }
  // What was seen before the end says nothing of what the worker's own stop did; before our beat, nothing of the beat.
  const since = Math.max(
    claim.observed.endedMs ?? Number.NEGATIVE_INFINITY,
    memory.is === "fenced" ? memory.beatSentMs : 0,
  );
  if (!item || item.askedMs < since) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  const because = outOfOurHands(claim, item);
  if (because !== null) return { do: "settled", because };
  return item.askedMs < nowMs - VIEW_MAX_AGE_MS ? LOOK : item;
}

/**
 * What must come before a view of an item that we beat is believed: a list that is behind may show it as it was before our
 * beat, which may have taken it from another client. Null: it shows our beat, or is too new not to.
 */
export function untilBeatShows(
  {
    claim: {
      lease: { memory },
    },
    nowMs,
    timing,
  }: Facts,
  item: ItemView,
): Step | null {
  if (memory.is !== "fenced") return null;
  const shownMs = memory.beatSentMs + timing.requestBoundMs + timing.listLagMs;
  if (item.askedMs >= shownMs || isSinceBeat(item, memory.value)) return null;
  return nowMs < shownMs ? waitUntil(shownMs) : LOOK;
}

function isSinceBeat({ latestHeartbeatAt }: ItemView, value: string | undefined): boolean {
  if (latestHeartbeatAt === null || value === undefined) return false;
  return latestHeartbeatAt === value || !isLater(value, latestHeartbeatAt);
}

/** The lease that our beat bought surely runs until a stop that is sent now has landed. */
export function isFenced({
  claim: {
    lease: { memory },
  },
  nowMs,
  timing,
}: Facts): boolean {
  if (memory.is !== "fenced") return false;
  return nowMs <= memory.beatSentMs + memory.ttlMs - timing.requestBoundMs - timing.marginMs;
}

/** Waits for the beat that is due: it buys time again, or shows that the lease is lost. The keeper says so when it does. */
export function untilBeaten({ nowMs, timing }: Facts, lease: HeldLease, patienceMs = Number.POSITIVE_INFINITY): Step {
  return waitUntil(patienceMs, Math.max(leaseEndMs(lease), nowMs + timing.retryBaseMs));
}
