import { Backoff, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { Answer } from "../work/client.ts";
import { instantOf, isSameInstant } from "./claim.ts";
import type { Journal } from "./journal.ts";

/**
 * A first answer leaves the server's clock uncertain by the second of a Date header and its own way. More (a server that
 * sends no Date) must not close the window: an acknowledgement without an answer is then taken for lost.
 */
const MAX_UNKNOWN_MS = 1_500;

/** The answer of a poll, and the `api.baseUrl` that it came from: a spec may name another one by now. */
export type Offer = Answer<unknown> & { readonly api: string };

/** Acknowledge until then, in milliseconds from the poll: nobody else can have been offered the item. Without evidence. */
export function windowMs({ othersReclaimMs, requestBoundMs, marginMs }: Timing): number {
  // Our request has landed by then (F + 1, clock.py).
  return othersReclaimMs - requestBoundMs - marginMs;
}

/** The same where evidence may be asked for: what is not known of the server's clock comes off, so that it can tell. */
export function ackWindowMs(timing: Timing, { polledFromMs, polledUntilMs }: Journal): number {
  return windowMs(timing) - Math.min(polledUntilMs - polledFromMs, MAX_UNKNOWN_MS);
}

/** Between repeats inside one window: a server that refuses at once must not be asked in a hot loop. */
export function repeatsWithin({ timing, random }: { readonly timing: Timing; readonly random: Random }): Backoff {
  return new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.othersReclaimMs }, random);
}

/**
 * The time in which an item may be acknowledged, from the sending of its poll. The larger of the monotonic and the wall
 * clock's time counts: one of them stands still while a machine sleeps, the other may be set.
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

  /** Waits so long, but not beyond the window. Resolves with whether it is still open. */
  async waits(ms: number): Promise<boolean> {
    if (this.isOpen) await sleep(this.#clock, Math.min(ms, this.#leftMs));
    return this.isOpen;
  }

  /** Waits for what is to happen, but not beyond the window. Resolves with whether it is still open. */
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
 * Whether a 200 to an acknowledgement of ours shows somebody else's: one that is older than our request (M), by what other
 * acknowledgements showed of the clock that stamps them. Date headers are no measure: where another machine writes them,
 * some milliseconds ahead, each of ours would look like somebody else's, and its item be left to nobody. The item may have
 * been acknowledged before it came back to the queue, though, and a server may keep that first time: what our poll showed
 * of the queued item, or what is older than our poll, is nobody's who came since.
 * @param shown acknowledged_at as the answer has it
 * @param before the same as the poll showed it; null: never acknowledged
 * @param earliest our poll and our request cannot have been sent earlier, by the clock that stamps acknowledgements
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
