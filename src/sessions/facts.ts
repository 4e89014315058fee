import type { Timing } from "../core/timing.ts";
import type { End, PodState } from "../pods/pod-state.ts";
import { type Claim, type Ending, type ItemView, isReacknowledged, type Memory } from "./claim.ts";

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

/** The next step of a claim. Names follow the model: open, touch, fence, stop, drop, settle. */
export type Step =
  /** Nothing until `untilMs` (monotonic), or until something changes when null. */
  | { readonly do: "wait"; readonly untilMs: number | null }
  /** Read the item with the list call. */
  | { readonly do: "look" }
  /** Our acknowledgement took effect: keep that in mind. `late`: after its window, so it may be another client's. */
  | { readonly do: "own"; readonly acknowledgedAt: string; readonly late?: true }
  /** lease: Operator: take the lease with this beat, and keep it: for an opening, or for a container that runs already. */
  | { readonly do: "take"; readonly expected: string }
  /** lease: Operator: somebody else has the lease. */
  | { readonly do: "lose"; readonly message: string }
  /** lease: Operator: beat no more; the lease lapses, and the item goes back to the queue. */
  | { readonly do: "let-go" }
  /** Give the Secret its key, and touch the Pod. */
  | { readonly do: "open"; readonly acknowledgedAt: string }
  /** Change the Pod, so that kubelet looks at once. */
  | { readonly do: "touch" }
  /** Remember the item's last heartbeat, to see whether it stands still. `beatenSinceMs`: one came after this. */
  | { readonly do: "snapshot"; readonly value: string; readonly beatenSinceMs?: number }
  /** Take the lease with a heartbeat of our own, so that a stop can only end what is ours. */
  | { readonly do: "fence"; readonly expected: string }
  | { readonly do: "stop"; readonly force: boolean }
  | { readonly do: "delete-pod"; readonly why: Ending; readonly message: string }
  /** Never ours, or not any more before it was opened: delete the Secret; the slot is free again. */
  | { readonly do: "drop"; readonly because: string }
  /** The item is out of our hands: delete the Secret, mark the Pod finished. */
  | { readonly do: "settled"; readonly because: string };

export const FOREVER = { do: "wait", untilMs: null } as const;
export const LOOK = { do: "look" } as const;
export const STOP = { do: "stop", force: true } as const;

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
  { item }: Claim,
  nowMs: number,
): Memory {
  const snapshot = { is: "snapshot", value, sinceMs: item?.askedMs ?? nowMs } as const;
  return beatenSinceMs === undefined ? snapshot : { ...snapshot, beatenSinceMs };
}

export function waitUntil(...times: number[]): Step {
  return { do: "wait", untilMs: Math.min(...times) };
}

export function deletePod(why: Ending, message: string): Step {
  return { do: "delete-pod", why, message };
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
  const isOff = startedAtMs <= 0 || saidMs < 0 || (claim.waitedMs !== null && saidMs > nowMs - claim.waitedMs);
  return isOff ? nowMs - (claim.waitedMs ?? claim.openedMs ?? nowMs) : saidMs;
}

/** Notes that the container has not started yet, if its Pod says so. */
export function noteWaiting(claim: Claim, pod: Facts["pod"], nowMs: number): void {
  if (pod.is === "unscheduled" || pod.is === "preparing" || pod.is === "parked") claim.waitedMs = nowMs;
}

/**
 * onPodFailure: Release, of a session that never started or whose container died without a word. One that Berth itself
 * ended is not released: it would only come back.
 */
export function isReleased({ claim, limits }: Pick<Facts, "claim" | "limits">): boolean {
  // Perhaps another client's: no stop may end it.
  if (claim.lateAck) return true;
  if (limits.onPodFailure !== "Release" || claim.journal.use !== "session") return false;
  if (claim.ending !== null && claim.ending.why !== "StartFailed") return false;
  return claim.end === null ? !limits.draining : diedWithoutAWord(claim.end);
}

/** 128 + SIGKILL: no program hears of that, so nobody told the item. */
const EXIT_SIGKILL = 137;

/** What did not end by itself, nor by a signal that it could handle. A Pod's deadline is Berth's own. */
function diedWithoutAWord({ cause, exitCode }: End): boolean {
  if (cause === "DeadlineExceeded") return false;
  return exitCode === null || exitCode === EXIT_SIGKILL || cause === "StartFailed";
}
