import { SECOND_MS } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { Heartbeat, LeaseState } from "../work/types.ts";

/**
 * An instant on both clocks, in milliseconds: the monotonic one stops while a machine sleeps; the wall clock can be
 * set.
 */
export interface Instant {
  readonly nowMs: number;
  readonly wallMs: number;
}

/**
 * The lease of a claim with `lease: Operator`, as this process knows it. Times are monotonic unless they say otherwise.
 */
export type Lease = HeldLease | LostLease | OverLease;

/** Our heartbeat was accepted, and nothing has contradicted it since. */
export interface HeldLease {
  readonly is: "held";
  /**
   * `stopping`: told to stop while it was ours. No other client can get it then, and the server ignores echoed values.
   */
  readonly state: "active" | "stopping";
  /** The server's value, byte for byte: the next heartbeat echoes it. */
  readonly echo: string;
  readonly ttlMs: number;
  /** When the last answered heartbeat was sent: its lease surely lasts `ttlMs` from then. */
  readonly sentMs: number;
  readonly sentWallMs: number;
  /** When the last unanswered heartbeat since then was sent; it may have taken effect. Null: there was none. */
  readonly unansweredMs: number | null;
  /** When the unanswered heartbeat was sent whose value was adopted: it took effect at an unknown time after that. */
  readonly adoptedMs?: number;
}

/** Another client or no client holds the lease: the Pod is deleted, and the item is not stopped. */
export interface LostLease {
  readonly is: "lost";
  /** `refusal`: the server refused a heartbeat. `silence`: no heartbeat was answered for a whole TTL. */
  readonly by: "refusal" | "silence";
  readonly message: string;
  /** From then on, no heartbeat of this process keeps the lease alive. */
  readonly lapsedMs: number;
}

/** The item is stopped. */
export interface OverLease {
  readonly is: "over";
}

/** The result of one heartbeat. */
export type BeatResult =
  | { readonly is: "answered"; readonly beat: Heartbeat; readonly sentMs: number; readonly sentWallMs: number }
  /** A 412; `current` is null if the body was unreadable. */
  | { readonly is: "refused"; readonly current: LeaseState | null }
  /** No answer: it may have taken effect, now or later. */
  | { readonly is: "unanswered"; readonly sentMs: number }
  /** It took no effect and says nothing about the lease. `retryAfterMs`: the pause that the server asked for. */
  | { readonly is: "failed"; readonly retryAfterMs?: number };

/** Clients send heartbeats every max(1 s, min(ttl / 2, 30 s)); more would burden the server. */
const SHORTEST_BEAT_MS = 1_000;

/**
 * Until when the last answered heartbeat surely keeps the lease. While the item is stopping, no other client can get
 * it.
 */
export function leaseEndMs({ state, sentMs, ttlMs }: HeldLease): number {
  return state === "stopping" ? Number.POSITIVE_INFINITY : sentMs + ttlMs;
}

/** The longest time between two heartbeats of this lease. */
export function beatIntervalMs({ ttlMs }: Pick<HeldLease, "ttlMs">, timing: Pick<Timing, "beatIntervalMs">): number {
  return Math.max(SHORTEST_BEAT_MS, Math.min(ttlMs / 2, timing.beatIntervalMs));
}

/**
 * How long after an answered heartbeat a stop may be sent: it then lands while the lease still lasts (F + 1, clock.py).
 */
export function stopWindowMs(ttlMs: number, timing: Pick<Timing, "requestBoundMs" | "marginMs">): number {
  return ttlMs - timing.requestBoundMs - timing.marginMs;
}

/** Whether a stop that is sent now can only end our own item. The larger of both clocks' durations counts. */
export function maySendStop(lease: HeldLease, now: Instant, timing: Timing): boolean {
  return lease.state === "stopping" || passedMs(lease, now) <= stopWindowMs(lease.ttlMs, timing);
}

/** The same for a lease that a fence took. */
export function mayStopFenced(
  fenced: { readonly beatSentMs: number; readonly beatSentWallMs?: number; readonly ttlMs: number },
  now: Instant,
  timing: Timing,
): boolean {
  const { beatSentMs: sentMs, beatSentWallMs: sentWallMs, ttlMs } = fenced;
  if (sentWallMs === undefined) return false;
  return passedMs({ sentMs, sentWallMs }, now) <= stopWindowMs(ttlMs, timing);
}

function passedMs(
  { sentMs, sentWallMs }: Pick<HeldLease, "sentMs" | "sentWallMs">,
  { nowMs, wallMs }: Instant,
): number {
  return Math.max(nowMs - sentMs, wallMs - sentWallMs);
}

/** The lease that an answered heartbeat took; null: the answer grants none. */
export function leaseOf(beat: Heartbeat, sentMs: number, sentWallMs: number): HeldLease | OverLease | null {
  if (beat.state === "stopped") return { is: "over" };
  const holds = beat.state === "stopping" || (beat.state === "active" && beat.lease_extended);
  if (!holds) return null;
  const state = beat.state === "stopping" ? "stopping" : "active";
  const ttlMs = beat.ttl_seconds * SECOND_MS;
  return { is: "held", state, echo: beat.last_heartbeat, ttlMs, sentMs, sentWallMs, unansweredMs: null };
}

/** The lease after a heartbeat's result. Pure. `now` is when the result arrived. */
export function afterBeat(lease: HeldLease, result: BeatResult, now: Instant, timing: Timing): Lease {
  // An answer after the lease's end reaches a process that slept: another client may have held the lease in between.
  const silent = now.nowMs >= leaseEndMs(lease);
  switch (result.is) {
    case "answered":
      if (result.beat.state === "stopped") return { is: "over" };
      return silent ? lostBySilence(lease, timing) : afterAnswer(lease, result, timing);
    case "refused":
      if (result.current?.state === "stopped") return { is: "over" };
      return silent ? lostBySilence(lease, timing) : afterRefusal(lease, result.current, now, timing);
    case "unanswered": {
      const unanswered = { ...lease, unansweredMs: result.sentMs };
      return silent ? lostBySilence(unanswered, timing) : unanswered;
    }
    case "failed":
      return silent ? lostBySilence(lease, timing) : lease;
    default:
      return result satisfies never;
  }
}

function afterAnswer(lease: HeldLease, { beat, sentMs, sentWallMs }: BeatResult & { is: "answered" }, timing: Timing) {
  const next = leaseOf(beat, sentMs, sentWallMs);
  if (!next)
    return lostByRefusal(lease, `the Work API did not accept its heartbeat: the work item is ${beat.state}`, timing);
  // The server may have handled this heartbeat before the stop: the answer doesn't undo the stop.
  return next.is === "held" && lease.state === "stopping" ? { ...next, state: lease.state } : next;
}

/**
 * The refusal shows a value that we don't know. After an unanswered heartbeat it is that heartbeat's, as long as the
 * earlier lease can't have lapsed: the refusal arrived before the last answered heartbeat was sent + TTL - 1 s (M). The
 * next heartbeat, sent immediately, extends the lease.
 */
function afterRefusal(lease: HeldLease, current: LeaseState | null, now: Instant, timing: Timing): Lease {
  if (lease.state === "stopping") return lease;
  if (current?.state === "stopping") return { ...lease, state: "stopping" };
  const value = current?.last_heartbeat;
  const adoptedMs = lease.unansweredMs;
  const isOurs = adoptedMs !== null && passedMs(lease, now) <= lease.ttlMs - timing.marginMs;
  if (current?.state === "active" && value && value !== lease.echo && isOurs) {
    return { ...lease, echo: value, unansweredMs: null, adoptedMs };
  }
  return lostByRefusal(lease, refusalText(current), timing);
}

function refusalText(current: LeaseState | null): string {
  if (current === null) return "the Work API refused its heartbeat";
  return current.state === "active"
    ? "another client sends heartbeats for the work item"
    : `the work item is ${current.state} again`;
}

function lostByRefusal(lease: HeldLease, message: string, timing: Timing): LostLease {
  return { is: "lost", by: "refusal", message, lapsedMs: lapsedMs(lease, timing) };
}

function lostBySilence(lease: HeldLease, timing: Timing): LostLease {
  const message = `no heartbeat was answered within its TTL (${Math.round(lease.ttlMs / SECOND_MS)} s)`;
  return { is: "lost", by: "silence", message, lapsedMs: lapsedMs(lease, timing) };
}

/** When the newest heartbeat that may keep the lease was sent. */
export function newestSentMs({ sentMs, unansweredMs, adoptedMs }: HeldLease): number {
  return unansweredMs ?? adoptedMs ?? sentMs;
}

function lapsedMs(lease: HeldLease, timing: Timing): number {
  return newestSentMs(lease) + timing.requestBoundMs + lease.ttlMs + timing.marginMs;
}
