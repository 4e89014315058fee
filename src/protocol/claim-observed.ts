import type { Timing } from "../core/timing.ts";
import type { End, PodState } from "../pods/pod-state.ts";
import type { WorkItem, WorkState } from "../work/types.ts";

/** A work item as the list call last showed it. Times are this process's monotonic clock. */
export interface ItemView {
  /**
   * `unknown`: the list could not be read to its end, or is older than what is known. `absent`: several complete lists
   * in a row, some seconds apart, did not contain the item.
   */
  readonly state: WorkState | "absent" | "unknown";
  readonly acknowledgedAt: string | null;
  readonly latestHeartbeatAt: string | null;
  readonly startedAt: string | null;
  /** When the list was requested. It shows the state of that moment, or of up to the list's lag before. */
  readonly askedMs: number;
  /** With `unknown`: the list was read to its end, so a later list will show the state. */
  readonly isWhole?: true;
  /** A poll returned the item. Unlike a list, it can't lag. */
  readonly isOffered?: true;
  /** The Work API answered our forced stop with 409: the item was stopped before. */
  readonly wasStopped?: true;
}

/** What this process observed of a claim's item and Pod. */
export interface ClaimObserved {
  readonly item: ItemView | null;
  /** When a read of a running container's item was last answered; null: no answer is awaited yet. */
  readonly heardMs: number | null;
  /** A read of the item has failed since the last answer. */
  readonly lookFailed: boolean;
  /** How long the Work API was silent while the container ran, and when it next answered; null: it never was silent. */
  readonly silentMs: number;
  readonly silenceEndMs: number | null;
  /** Reads of the list in a row that could not be completed. */
  readonly unknowns: number;
  /** When this process last saw that the container had not started; null: the process never saw it wait. */
  readonly waitedMs: number | null;
  /** When the container started, by the node's wall clock. */
  readonly startedAtMs: number | null;
  /**
   * The first heartbeat, by the wall clock of its reporter; lease: Operator: the operator's own that took the lease.
   */
  readonly firstBeatAtMs: number | null;
  /** The item was seen active; lease: Operator: the container ran long enough to serve. */
  readonly firstBeatSeen: boolean;
  /** lease: Operator: the program ended before it can have served. */
  readonly neverServed: boolean;
  /** The outcome of this claim's start was reported. */
  readonly judged: boolean;
  readonly stoppingSinceMs: number | null;
  readonly lostSinceMs: number | null;
  /** The API server has no Pod with this uid and never will: the claim uses no capacity. */
  readonly podGone: boolean;
  /** Set when the container or the Pod has ended; not for a Pod that was deleted before its Secret was opened. */
  readonly end: End | null;
  readonly endedMs: number | null;
}

/** A work item as shown by an answer to a request that was sent at `askedMs` (monotonic). */
export function viewOf(item: WorkItem, askedMs: number): ItemView {
  return {
    state: item.state,
    acknowledgedAt: item.acknowledged_at,
    latestHeartbeatAt: item.latest_heartbeat_at,
    startedAt: item.started_at,
    askedMs,
  };
}

type Writable = { -readonly [Field in keyof ClaimObserved]: ClaimObserved[Field] };
/** The part as this module may change it: everyone else gets it read-only. */
type Observed = { readonly observed: Writable };

export function newObserved(): ClaimObserved {
  return {
    item: null,
    heardMs: null,
    lookFailed: false,
    silentMs: 0,
    silenceEndMs: null,
    unknowns: 0,
    waitedMs: null,
    startedAtMs: null,
    firstBeatAtMs: null,
    firstBeatSeen: false,
    neverServed: false,
    judged: false,
    stoppingSinceMs: null,
    lostSinceMs: null,
    podGone: false,
    end: null,
    endedMs: null,
  };
}

/** A list showed the item. */
export function noteItem({ observed }: Observed, view: ItemView): void {
  observed.item = view;
  observed.unknowns = view.state === "unknown" && !view.isWhole ? observed.unknowns + 1 : 0;
}

/** The item as shown by an answer other than a list; null: the earlier view is out of date. */
export function replaceItem({ observed }: Observed, view: ItemView | null): void {
  observed.item = view;
}

/** A read of the item got no answer. */
export function noteLookFailed({ observed }: Observed): void {
  observed.lookFailed = true;
}

/** A read of a running container's item was answered. Time without an answer says nothing about the program. */
export function noteHeard(
  { observed }: Observed,
  { nowMs, looksFail }: { nowMs: number; looksFail: boolean },
  { silenceMs }: Pick<Timing, "silenceMs">,
): void {
  const { heardMs, endedMs } = observed;
  // After the container's end only the first answer counts: later reads are rare.
  if (heardMs === null || (endedMs !== null && heardMs > endedMs)) return;
  observed.heardMs = nowMs;
  // A small request budget can space reads far apart: that is not silence of the Work API.
  const hasFailed = observed.lookFailed || looksFail;
  observed.lookFailed = false;
  if (!hasFailed || nowMs - heardMs <= silenceMs) return;
  observed.silentMs += nowMs - heardMs;
  observed.silenceEndMs = nowMs;
}

/** From now on, an answer about the container's item is awaited. */
export function awaitAnswer({ observed }: Observed, nowMs: number): void {
  observed.heardMs ??= nowMs;
}

/** Records that the container has not started yet, if the Pod says so. */
export function noteWaiting({ observed }: Observed, pod: PodState | { readonly is: "gone" }, nowMs: number): void {
  if (pod.is !== "gone" && pod.is !== "running" && pod.is !== "ended") observed.waitedMs = nowMs;
}

/** When the container started; null: its status does not say. */
export function noteStarted({ observed }: Observed, startedAtMs: number | null): void {
  observed.startedAtMs = startedAtMs;
}

/** The first heartbeat, by the wall clock of its reporter; later reports don't replace it. */
export function noteFirstBeat({ observed }: Observed, wallMs: number | null): void {
  observed.firstBeatAtMs ??= wallMs;
}

export function noteServed({ observed }: Observed): void {
  observed.firstBeatSeen = true;
}

/** lease: Operator: the program ended. It served if a sign of that was seen before. */
export function noteServedOrNot({ observed }: Observed): void {
  observed.neverServed = !observed.firstBeatSeen;
}

export function noteJudged({ observed }: Observed): void {
  observed.judged = true;
}

/** The item was seen in state `stopping`. */
export function noteStopping({ observed }: Observed, nowMs: number): void {
  observed.stoppingSinceMs ??= nowMs;
}

/** This process told the item to stop. */
export function noteStopSent({ observed }: Observed, nowMs: number): void {
  observed.stoppingSinceMs = nowMs;
}

/** Since when the item is no longer ours; null: it is ours. */
export function noteLost({ observed }: Observed, nowMs: number | null): void {
  if (nowMs === null) observed.lostSinceMs = null;
  else observed.lostSinceMs ??= nowMs;
}

export function notePodGone({ observed }: Observed): void {
  observed.podGone = true;
}

/** The container or the Pod has ended. */
export function noteEnd({ observed }: Observed, end: End, nowMs: number): void {
  observed.end = end;
  observed.endedMs ??= nowMs;
}
