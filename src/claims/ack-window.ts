import { Backoff, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import type { ServerTime } from "../core/server-time.ts";
import { instantOf, isSameInstant } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import type { Journal } from "../protocol/journal.ts";
import type { Answer } from "../work/client.ts";

/**
 * One answer leaves the server's clock uncertain by the second of a Date header plus the round trip. A larger
 * uncertainty (a server that sends no Date) must not close the window: an acknowledgement without an answer then counts
 * as lost.
 */
const MAX_UNKNOWN_MS = 1_500;

/**
 * How long after its poll an item may be acknowledged, in milliseconds: until then, the server can't have offered it to
 * another client. Leaves no margin for a later check of `acknowledged_at`; see `ackWindowMs`.
 */
export function windowMs({ othersReclaimMs, requestBoundMs, marginMs }: Timing): number {
  // A request that is sent in this window lands before the item is offered again (F + 1, clock.py).
  return othersReclaimMs - requestBoundMs - marginMs;
}

/**
 * The same for a claim whose `acknowledged_at` may be checked later. The window is shorter by the uncertainty of the
 * server's clock: otherwise the time could not prove whose acknowledgement it was.
 */
export function ackWindowMs(timing: Timing, { polledFromMs, polledUntilMs }: Journal): number {
  return windowMs(timing) - Math.min(polledUntilMs - polledFromMs, MAX_UNKNOWN_MS);
}

/**
 * How long an acknowledgement for the journal of an earlier process can still take effect; negative if that time has
 * passed. Its poll is in the past, so the whole window from now is always enough. It also applies until the Work API has
 * reported its time, because our own clock may be minutes ahead.
 */
export function lateAckLeftMs(
  { clock, timing }: { readonly clock: Clock; readonly timing: Timing },
  { polledUntilMs }: Journal,
  serverTime: ServerTime,
): number {
  const wholeMs = timing.othersReclaimMs + timing.marginMs;
  const { earliestMs } = serverTime.at(clock.monotonic(), Number.POSITIVE_INFINITY);
  const leftMs = polledUntilMs + timing.othersReclaimMs - earliestMs;
  return Number.isNaN(leftMs) ? wholeMs : Math.min(wholeMs, leftMs);
}

/** Backoff between repeats inside one window: a server that refuses immediately must not be retried in a hot loop. */
export function repeatsWithin({ timing, random }: { readonly timing: Timing; readonly random: Random }): Backoff {
  return new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.othersReclaimMs }, random);
}

/**
 * The time in which an item may be acknowledged, counted from the moment its poll was sent. The larger of the monotonic
 * and the wall clock's durations counts: the first stops while a machine sleeps, and the second can be set.
 */
export class AckWindow {
  readonly #clock: Clock;
  readonly #polled: Pick<Answer<unknown>, "sentAtMs" | "sentAtWallMs">;
  readonly #lengthMs: number;

  constructor(clock: Clock, polled: Pick<Answer<unknown>, "sentAtMs" | "sentAtWallMs">, lengthMs: number) {
    this.#clock = clock;
    this.#polled = polled;
    this.#lengthMs = lengthMs;
  }

  /** When the item was polled, on the monotonic clock. */
  get polledMs(): number {
    return this.#polled.sentAtMs;
  }

  get isOpen(): boolean {
    return this.#leftMs > 0;
  }

  /** Waits for `ms`, but not beyond the window. Resolves with whether the window is still open. */
  async waits(ms: number): Promise<boolean> {
    if (this.isOpen) await sleep(this.#clock, Math.min(ms, this.#leftMs));
    return this.isOpen;
  }

  /** Waits for the event, but not beyond the window. Resolves with whether the window is still open. */
  async waitsFor(event: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
    const either = new AbortController();
    if (this.isOpen) await Promise.race([event(either.signal), sleep(this.#clock, this.#leftMs, either.signal)]);
    either.abort();
    return this.isOpen;
  }

  get #leftMs(): number {
    const { sentAtMs, sentAtWallMs } = this.#polled;
    const passedMs = Math.max(this.#clock.monotonic() - sentAtMs, this.#clock.now() - sentAtWallMs);
    return this.#lengthMs - passedMs;
  }
}

/**
 * Whether a 200 to our acknowledgement shows that another client holds the item: `acknowledged_at` is older than our
 * request (M). Both times are on the clock that stamps acknowledgements, which earlier acknowledgements revealed. Date
 * headers don't work: if another machine writes them and its clock is ahead by milliseconds, each of our
 * acknowledgements looks like another client's, and no client serves the item.
 *
 * The item may have been acknowledged before it returned to the queue, and a server may keep that first time. So a time
 * that our poll already showed, or that is older than our poll, doesn't mean that another client came since.
 * @param shown acknowledged_at in the answer
 * @param before acknowledged_at in the poll's answer; null: never acknowledged
 * @param earliest our poll and our request can't have been sent earlier, by the clock that stamps acknowledgements
 */
export function isSomebodyElses(
  shown: string,
  before: string | null,
  earliest: { readonly polledMs: number; readonly sentMs: number },
): boolean {
  const instant = instantOf(shown);
  if (instant === null || isSameInstant(shown, before)) return false;
  return instant.beforeMs > earliest.polledMs && instant.beforeMs <= earliest.sentMs;
}
