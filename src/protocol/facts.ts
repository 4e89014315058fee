import { isLater } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import type { End, PodState } from "../pods/pod-state.ts";
import { type Claim, isReacknowledged } from "./claim.ts";
import type { Memory } from "./claim-lease.ts";
import type { ItemView } from "./claim-observed.ts";
import { type HeldLease, leaseEndMs } from "./lease.ts";
import { type Ending, LOOK, type Step, waitUntil } from "./step.ts";

/**
 * The input for deciding a claim's next step. `nowMs` and all times of the claim are on the monotonic clock. `wallMs`
 * is the operator's wall clock at the same instant, compared with the times of heartbeats. `clusterMs` is the API
 * server's clock, compared with the times of objects.
 */
export interface Facts {
  readonly claim: Readonly<Claim>;
  readonly pod: PodState | { readonly is: "gone" };
  /** Monotonic: when a Pod that is being deleted should be gone; null: it is not being deleted. */
  readonly podGoneByMs: number | null;
  /** The Pod's labels show that it was touched. */
  readonly podAssigned: boolean;
  /** The container waits for its line (parking: Shell and Program). `pod` is then `parked`, although the container runs. */
  readonly waitsForLine: boolean;
  readonly nowMs: number;
  readonly wallMs: number;
  readonly clusterMs: number;
  readonly limits: Limits;
  readonly timing: Timing;
}

/** An Environment's bounds in milliseconds, and how its sessions end. */
export interface Limits {
  readonly firstBeatTimeoutMs: number;
  readonly maxDurationMs: number;
  readonly graceMs: number;
  /** `Release` only while this item's Pods have not failed too often. */
  readonly onPodFailure: "Stop" | "Release";
  /** The Environment is being deleted. */
  readonly draining: boolean;
  /** Monotonic: when running sessions are stopped; Infinity while not draining. */
  readonly drainDeadlineMs: number;
}

/** The decisions that depend on who sends the heartbeats: the program in the container, or the operator. */
export interface LeaseKind {
  /**
   * For an acknowledged claim whose container may start; `patienceMs`: until when to wait for a Pod that is not parked.
   */
  open(facts: Facts, acknowledgedAt: string, patienceMs: number): Step;
  /** For an opened claim whose container runs, or is about to. */
  watch(facts: Facts): Step;
  /** The same while the Pod is being deleted; `goneByMs`: when the Pod should be gone. */
  whileDeleting(facts: Facts, goneByMs: number): Step;
  /** For a claim whose container has ended, or won't start. */
  settle(facts: Facts): Step;
}

/**
 * How long a container may run past its end while it can't be told to stop yet: its grace, but at least until its next
 * heartbeat is seen. That can take two reads and the list's lag after the last heartbeat stopped proving the lease. If
 * the Pod were deleted earlier, its item would be queued again. The third read is slack.
 */
export function stopPatienceMs(
  graceMs: number,
  { observeFirstBeatMs, listLagMs }: Pick<Timing, "observeFirstBeatMs" | "listLagMs">,
): number {
  return Math.max(graceMs, 3 * observeFirstBeatMs + listLagMs);
}

/** The memory that a snapshot leaves: the heartbeat that was seen, as of the moment the list was requested. */
export function remembered(
  { value, beatenSinceMs }: Extract<Step, { do: "snapshot" }>,
  { observed: { item } }: Claim,
  nowMs: number,
): Memory {
  const snapshot = { is: "snapshot", value, sinceMs: item?.askedMs ?? nowMs } as const;
  return beatenSinceMs === undefined ? snapshot : { ...snapshot, beatenSinceMs };
}

/** The reason and message for ending a session whose time has ended. */
export function overdueEnding(byDuration: boolean): [Ending, string] {
  return byDuration
    ? ["MaxDuration", "the session reached maxDurationSeconds"]
    : ["EnvironmentDeleted", "the Environment was deleted, and deletionGraceSeconds have passed"];
}

/** Whether no client holds the item, so that Berth has nothing left to do for it. */
export function isOver(item: ItemView): boolean {
  return item.state === "queued" || item.state === "stopped" || item.state === "absent";
}

/** Why the item is no longer ours; null: it is ours. */
export function outOfOurHands(claim: Readonly<Claim>, item: ItemView): string | null {
  if (isOver(item)) return item.state;
  return isReacknowledged(claim, item) ? "acknowledged by another client" : null;
}

/**
 * How long the container has run. The node's clock, which reports its start, may be wrong: the container can't have
 * started while this process still saw it wait, nor in the future. If no time is usable, it counts from when its key
 * was found.
 */
export function ranFor({ claim, nowMs, clusterMs }: Facts, startedAtMs: number): number {
  const saidMs = clusterMs - startedAtMs;
  const isOff =
    startedAtMs <= 0 || saidMs < 0 || (claim.observed.waitedMs !== null && saidMs > nowMs - claim.observed.waitedMs);
  return isOff ? nowMs - (claim.observed.waitedMs ?? claim.record.openedMs ?? nowMs) : saidMs;
}

/**
 * Whether the item is released (onPodFailure: Release): its session never started, or its container was killed. A
 * session that Berth ended is not released, since its item would return to the queue.
 */
export function isReleased({ claim, limits }: Pick<Facts, "claim" | "limits">): boolean {
  // The item may be another client's, so it must not be stopped.
  if (claim.record.lateAck) return true;
  if (limits.onPodFailure !== "Release" || claim.record.journal.use !== "session") return false;
  if (claim.record.ending !== null && claim.record.ending.why !== "StartFailed") return false;
  if (claim.observed.end === null) return !limits.draining;
  const { ending, openedMs, openingSent } = claim.record;
  return ending !== null || (openedMs === null && !openingSent) || wasKilled(claim.observed.end);
}

/** 128 + SIGKILL: a program can't handle that signal, so it did not stop its item. */
const EXIT_SIGKILL = 137;

/**
 * Whether the program never started, or ended neither on its own nor by a signal that it can handle. Berth itself set
 * the Pod's deadline.
 */
function wasKilled({ cause, exitCode, startedAtMs }: End): boolean {
  if (cause === "DeadlineExceeded") return false;
  // A container that only waits for its line ends on its own when its Pod is deleted.
  if (startedAtMs === null) return true;
  return exitCode === null || exitCode === EXIT_SIGKILL || cause === "StartFailed";
}

/**
 * When the Pod is touched next. The kubelet's watches of Secrets and Pods are not ordered: it may handle a touch before
 * it sees the key, so the touch is repeated.
 */
export function nextTouchMs(
  { record: { touches, touchedMs }, failing }: Readonly<Claim>,
  { touchAgainMs }: Timing,
): number {
  if (touchedMs === null) return Number.NEGATIVE_INFINITY;
  const pauseMs = touchAgainMs[Math.min(touches, touchAgainMs.length) - 1] ?? 0;
  // The API server may refuse touches for as long as the session lasts, so failed ones back off.
  return Math.max(touchedMs + pauseMs, failing?.get("touch")?.untilMs ?? 0);
}

/** When the Pod of a program that runs, or may run, must be assigned; Infinity: it is. */
export function assignAtMs({ claim, podAssigned, timing }: Facts): number {
  return podAssigned ? Number.POSITIVE_INFINITY : nextTouchMs(claim, timing);
}

/** Doublings of the pause between reads, from 5 s to about 5 min. */
const MAX_DOUBLINGS = 6;

/**
 * An item that was seen longer ago is read again before anything is done to it: a request that keeps being refused may
 * be based on an outdated view. Longer than the slowest walk through the list.
 */
const VIEW_MAX_AGE_MS = 300_000;

/**
 * Reads the item again, after a pause that doubles while the list can't be read to its end. A list that is longer than
 * a walk won't be shorter in five seconds, and every page counts against the organization's request budget.
 */
export function lookAgain({ claim, nowMs, timing }: Facts): Step {
  const pauseMs = timing.settleLookMs * 2 ** Math.min(MAX_DOUBLINGS, Math.max(0, claim.observed.unknowns - 1));
  const again = (claim.observed.item?.askedMs ?? 0) + pauseMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

/** Waits for a lease to lapse, until `lapsedMs` if it is known, and reads the item less and less often. */
export function untilLapsed({ claim, nowMs, timing }: Facts, item: ItemView, lapsedMs: number | null): Step {
  const agoMs = item.askedMs - (claim.observed.endedMs ?? claim.lateAckUntilMs);
  const pauseMs = Math.min(VIEW_MAX_AGE_MS, Math.max(timing.settleLookMs, agoMs));
  const again = lapsedMs !== null && lapsedMs > nowMs ? lapsedMs : item.askedMs + pauseMs;
  return nowMs >= again ? LOOK : { do: "wait", untilMs: again };
}

/**
 * The item, if it was read since the container's end and our heartbeat and is still ours; otherwise the step to take
 * first.
 */
export function seenSince(facts: Facts): ItemView | Step {
  const { claim, nowMs, timing } = facts;
  const { item } = claim.observed;
  const { memory } = claim.lease;
  if (memory.is === "refused" && nowMs < memory.atMs + timing.settleLookMs) {
    return { do: "wait", untilMs: memory.atMs + timing.settleLookMs };
  }
  // A view from before the container's end doesn't show a stop by the worker; one from before our heartbeat doesn't
  // show that heartbeat.
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
 * The step to take before a view of a fenced item can be trusted: a stale list may show the item from before our
 * heartbeat, which may have taken it from another client. Null: the view shows our heartbeat, or is too recent to be
 * stale.
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

/** Whether the lease from our heartbeat surely lasts until a stop that is sent now has landed. */
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

/**
 * Waits for the heartbeat that is due: it extends the lease or shows that it is lost, and the lease keeper reports
 * which.
 */
export function untilBeaten({ nowMs, timing }: Facts, lease: HeldLease, patienceMs = Number.POSITIVE_INFINITY): Step {
  return waitUntil(patienceMs, Math.max(leaseEndMs(lease), nowMs + timing.retryBaseMs));
}
