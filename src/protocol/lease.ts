import { SECOND_MS } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { Heartbeat, LeaseState } from "../work/types.ts";

/** An instant on both clocks, in milliseconds: one of them stands still while a machine sleeps, the other may be set. */
export interface Instant {
  readonly nowMs: number;
  readonly wallMs: number;
}

/** The lease of a claim with `lease: Operator`, as this process knows it. Times are the monotonic clock, unless said otherwise. */
export type Lease = HeldLease | LostLease | OverLease;

/** A beat of ours was accepted, and nothing has spoken against it since. */
export interface HeldLease {
  readonly is: "held";
  /** `stopping`: told to stop while it was ours. Nobody else can get it then, and values are not compared any more. */
  readonly state: "active" | "stopping";
  /** The server's value, byte for byte: the next beat shows it. */
  readonly echo: string;
  readonly ttlMs: number;
  /** When the last beat that was answered was sent: what was bought with it surely runs `ttlMs` from then. */
  readonly sentMs: number;
  readonly sentWallMs: number;
  /** When the last beat since then that got no answer was sent: it may have taken effect. Null: there was none. */
  readonly unansweredMs: number | null;
  /** When the beat was sent whose value was adopted, with no answer of its own: it took effect, nobody knows when. */
  readonly adoptedMs?: number;
}

/** In nobody's hands, or in somebody else's: the Pod goes, the item is not stopped. */
export interface LostLease {
  readonly is: "lost";
  /** `refusal`: the server said so. `silence`: no beat was answered for a whole TTL. */
  readonly by: "refusal" | "silence";
  readonly message: string;
  /** By then nothing that this process sent keeps the lease alive any more. */
  readonly lapsedMs: number;
}

/** The item is stopped. */
export interface OverLease {
  readonly is: "over";
}

/** What became of one beat. */
export type BeatResult =
  | { readonly is: "answered"; readonly beat: Heartbeat; readonly sentMs: number; readonly sentWallMs: number }
  /** A 412; `current` is null where its body could not be read. */
  | { readonly is: "refused"; readonly current: LeaseState | null }
  /** No answer: it may have taken effect, now or later. */
  | { readonly is: "unanswered"; readonly sentMs: number }
  /** It took no effect, and says nothing of the lease. `retryAfterMs`: what the server asked for. */
  | { readonly is: "failed"; readonly retryAfterMs?: number };

/** Clients beat every max(1 s, min(ttl / 2, 30 s)); sooner would be a burden to the server. */
const SHORTEST_BEAT_MS = 1_000;

/** Until when the last answered beat keeps the lease, at the least. While the item is stopping nobody else can get it. */
export function leaseEndMs({ state, sentMs, ttlMs }: HeldLease): number {
  return state === "stopping" ? Number.POSITIVE_INFINITY : sentMs + ttlMs;
}

/** The longest time between two beats of this lease. */
export function beatIntervalMs({ ttlMs }: Pick<HeldLease, "ttlMs">, timing: Pick<Timing, "beatIntervalMs">): number {
  return Math.max(SHORTEST_BEAT_MS, Math.min(ttlMs / 2, timing.beatIntervalMs));
}

/** So long an answered beat allows for a stop: one that is sent then has landed while the lease still runs (F + 1, clock.py). */
export function stopWindowMs(ttlMs: number, timing: Pick<Timing, "requestBoundMs" | "marginMs">): number {
  return ttlMs - timing.requestBoundMs - timing.marginMs;
}

/** Whether a stop that is sent now can only end what is ours. Counted by the slower of both clocks' patience. */
export function maySendStop(lease: HeldLease, now: Instant, timing: Timing): boolean {
  return lease.state === "stopping" || passedMs(lease, now) <= stopWindowMs(lease.ttlMs, timing);
}

/** The same of a lease that one beat took for a stop. */
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

/** The lease that the first beat bought, or one with a value that stood still; null: the answer gives none. */
export function leaseOf(beat: Heartbeat, sentMs: number, sentWallMs: number): HeldLease | OverLease | null {
  if (beat.state === "stopped") return { is: "over" };
  const holds = beat.state === "stopping" || (beat.state === "active" && beat.lease_extended);
  if (!holds) return null;
  const state = beat.state === "stopping" ? "stopping" : "active";
  const ttlMs = beat.ttl_seconds * SECOND_MS;
  return { is: "held", state, echo: beat.last_heartbeat, ttlMs, sentMs, sentWallMs, unansweredMs: null };
}

/** What a beat's end says of the lease; pure. `now` is when it was heard of. */
export function afterBeat(lease: HeldLease, result: BeatResult, now: Instant, timing: Timing): Lease {
  // An answer that comes after its time is one to a process that slept: somebody else may have had the lease in between.
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
  if (!next) return lostByRefusal(lease, `its beat was not taken: the work item is ${beat.state}`, timing);
  // A beat that was handled before the stop is no news after it.
  return next.is === "held" && lease.state === "stopping" ? { ...next, state: lease.state } : next;
}

/**
 * A value that we do not know. After a beat without an answer it is that beat's, as long as what was bought before cannot
 * have lapsed: heard of before the last answered beat's sending + TTL - 1 s (M). The next beat, at once, buys time again.
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
  return lostByRefusal(lease, apiErrorText(current), timing);
}

function apiErrorText(current: LeaseState | null): string {
  if (current === null) return "its beat was refused";
  return current.state === "active" ? "somebody else beats the work item" : `the work item is ${current.state} again`;
}

function lostByRefusal(lease: HeldLease, message: string, timing: Timing): LostLease {
  return { is: "lost", by: "refusal", message, lapsedMs: lapsedMs(lease, timing) };
}

function lostBySilence(lease: HeldLease, timing: Timing): LostLease {
  const message = `no beat was answered for a whole TTL (${Math.round(lease.ttlMs / SECOND_MS)} s)`;
  return { is: "lost", by: "silence", message, lapsedMs: lapsedMs(lease, timing) };
}

/** When the newest beat was sent that may keep the lease: it lapses no earlier than the one of that beat. */
export function newestSentMs({ sentMs, unansweredMs, adoptedMs }: HeldLease): number {
  return unansweredMs ?? adoptedMs ?? sentMs;
}

function lapsedMs(lease: HeldLease, timing: Timing): number {
  return newestSentMs(lease) + timing.requestBoundMs + lease.ttlMs + timing.marginMs;
}
