import type { Timing } from "../core/timing.ts";
import type { End, PodState } from "../pods/pod-state.ts";
import type { WorkItem, WorkState } from "../work/types.ts";

/** A work item as the list call last showed it. Times are this process's monotonic clock. */
export interface ItemView {
  /**
   * `unknown`: the list could not be read to its end, or is older than what we know. `absent`: whole lists in a row, some
   * seconds apart, did not have it.
   */
  readonly state: WorkState | "absent" | "unknown";
  readonly acknowledgedAt: string | null;
  readonly latestHeartbeatAt: string | null;
  readonly startedAt: string | null;
  /** When the list was asked for: it shows what was true then, or up to the list's lag before. */
  readonly askedMs: number;
  /** Of `unknown`: the list was read to its end, so a later one will tell. */
  readonly isWhole?: true;
}

/** What this process saw of a claim's item and Pod. */
export interface ClaimObserved {
  readonly item: ItemView | null;
  /** When a look at its running container's item was last answered; null: none is awaited yet. */
  readonly heardMs: number | null;
  /** A look at the item failed since the last that was answered. */
  readonly lookFailed: boolean;
  /** How long the Work API was silent while the container ran, and when it next answered; null: it never was silent. */
  readonly silentMs: number;
  readonly silenceEndMs: number | null;
  /** Looks in a row that could not be completed. */
  readonly unknowns: number;
  /** When this process last saw that the container had not started; null: it always saw it run. */
  readonly waitedMs: number | null;
  /** When the container started, by the node's wall clock. */
  readonly startedAtMs: number | null;
  /** The first heartbeat, by the wall clock of whoever reports it; lease: Operator: our own that took the lease. */
  readonly firstBeatAtMs: number | null;
  /** The item was seen active; lease: Operator: its container ran long enough to serve. */
  readonly firstBeatSeen: boolean;
  /** lease: Operator: its program failed before it can have served. */
  readonly neverServed: boolean;
  /** The breaker was told what this claim's start says of its template. */
  readonly judged: boolean;
  readonly stoppingSinceMs: number | null;
  readonly lostSinceMs: number | null;
  /** The API server has no Pod of its uid, and never will: the claim takes no room. */
  readonly podGone: boolean;
  /** Set when its container or its Pod has ended; not for a Pod that was deleted before its Secret was opened. */
  readonly end: End | null;
  readonly endedMs: number | null;
}

/** A work item as an answer showed it that was asked for at `askedMs` (monotonic). */
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
type Observed = { readonly observed: ClaimObserved };

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
  (observed as Writable).item = view;
  (observed as Writable).unknowns = view.state === "unknown" && !view.isWhole ? observed.unknowns + 1 : 0;
}

/** The item as an answer of its own shows it, apart from lists; null: what was seen of it is out of date. */
export function replaceItem({ observed }: Observed, view: ItemView | null): void {
  (observed as Writable).item = view;
}

/** A look at the item was not answered. */
export function noteLookFailed({ observed }: Observed): void {
  (observed as Writable).lookFailed = true;
}

/** A look at a running container's item was answered. Time without an answer says nothing of the program. */
export function noteHeard(
  { observed }: Observed,
  { nowMs, looksFail }: { nowMs: number; looksFail: boolean },
  { silenceMs }: Pick<Timing, "silenceMs">,
): void {
  const writable: Writable = observed;
  const { heardMs, endedMs } = observed;
  // Of a container that has ended only the first look counts: later ones are rare.
  if (heardMs === null || (endedMs !== null && heardMs > endedMs)) return;
  writable.heardMs = nowMs;
  // Looks may be far apart for want of budget: that is no silence.
  const hasFailed = observed.lookFailed || looksFail;
  writable.lookFailed = false;
  if (!hasFailed || nowMs - heardMs <= silenceMs) return;
  writable.silentMs += nowMs - heardMs;
  writable.silenceEndMs = nowMs;
}

/** From now on an answer about the container's item is awaited. */
export function awaitAnswer({ observed }: Observed, nowMs: number): void {
  (observed as Writable).heardMs ??= nowMs;
}

/** Notes that the container has not started yet, if its Pod says so. */
export function noteWaiting({ observed }: Observed, pod: PodState | { readonly is: "gone" }, nowMs: number): void {
  if (pod.is === "unscheduled" || pod.is === "preparing" || pod.is === "parked")
    (observed as Writable).waitedMs = nowMs;
}

/** When the container started; null: its status does not say. */
export function noteStarted({ observed }: Observed, startedAtMs: number | null): void {
  (observed as Writable).startedAtMs = startedAtMs;
}

/** The first heartbeat, by the wall clock of whoever reports it; the first one that is reported stays. */
export function noteFirstBeat({ observed }: Observed, wallMs: number | null): void {
  (observed as Writable).firstBeatAtMs ??= wallMs;
}

export function noteServed({ observed }: Observed): void {
  (observed as Writable).firstBeatSeen = true;
}

/** lease: Operator: the program ended; it served if a sign of that was seen before. */
export function noteServedOrNot({ observed }: Observed): void {
  (observed as Writable).neverServed = !observed.firstBeatSeen;
}

export function noteJudged({ observed }: Observed): void {
  (observed as Writable).judged = true;
}

/** The item is seen `stopping`. */
export function noteStopping({ observed }: Observed, nowMs: number): void {
  (observed as Writable).stoppingSinceMs ??= nowMs;
}

/** This process asked the item to stop. */
export function noteStopSent({ observed }: Observed, nowMs: number): void {
  (observed as Writable).stoppingSinceMs = nowMs;
}

/** Since when the item is not ours any more; null: it is ours. */
export function noteLost({ observed }: Observed, nowMs: number | null): void {
  const writable: Writable = observed;
  if (nowMs === null) writable.lostSinceMs = null;
  else writable.lostSinceMs ??= nowMs;
}

export function notePodGone({ observed }: Observed): void {
  (observed as Writable).podGone = true;
}

/** Its container or its Pod has ended. */
export function noteEnd({ observed }: Observed, end: End, nowMs: number): void {
  Object.assign<Writable, Partial<ClaimObserved>>(observed, { end, endedMs: observed.endedMs ?? nowMs });
}
