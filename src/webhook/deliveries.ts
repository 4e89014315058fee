import { type Clock, SECOND_MS } from "../core/clock.ts";
import { TOLERANCE_SECONDS } from "./signature.ts";

/** By then a delivery is too old to be taken again, whatever our clock and the sender's differ by. */
const REMEMBERED_MS = 2 * TOLERANCE_SECONDS * SECOND_MS;
/** Some megabytes at most. An id that is forgotten early costs one more look at a queue. */
const MAX_REMEMBERED = 20_000;

/** The ids of deliveries that were taken: the platform may send one several times, and anybody may send it again. */
export class SeenDeliveries {
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #seenMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#seenMs.size;
  }

  /** True the first time. */
  isNew(id: string): boolean {
    const nowMs = this.#clock.monotonic();
    for (const [oldest, atMs] of this.#seenMs) {
      if (this.#seenMs.size < MAX_REMEMBERED && nowMs - atMs < REMEMBERED_MS) break;
      this.#seenMs.delete(oldest);
    }
    if (this.#seenMs.has(id)) return false;
    this.#seenMs.set(id, nowMs);
    return true;
  }
}

/** So many requests a second, and at once after a pause; more are refused. */
export class RequestRate {
  readonly #clock: Clock;
  readonly #perSecond: number;
  readonly #burst: number;
  #left: number;
  #countedMs: number;

  constructor(options: { clock: Clock; perSecond: number; burst: number }) {
    this.#clock = options.clock;
    this.#perSecond = options.perSecond;
    this.#burst = options.burst;
    this.#left = options.burst;
    this.#countedMs = options.clock.monotonic();
  }

  /** Whether one more may be taken now; counts it if so. */
  take(): boolean {
    const nowMs = this.#clock.monotonic();
    this.#left = Math.min(this.#burst, this.#left + ((nowMs - this.#countedMs) / SECOND_MS) * this.#perSecond);
    this.#countedMs = nowMs;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }
}

/** The platform sends from some addresses, or all comes through one proxy; each other replica has one. */
export const MAX_PROVEN = 64;

export interface RateLimit {
  readonly perSecond: number;
  readonly burst: number;
}

/**
 * How many requests are looked at: so many of each address that new, signed deliveries came from, and as many of all others
 * together. A flood from elsewhere takes nothing from who is known to send. Where all come through one proxy they have one
 * address, and share.
 */
export class SenderRates {
  readonly #clock: Clock;
  readonly #limit: RateLimit;
  readonly #others: RequestRate;
  /** Whose last signed delivery is the longest ago first. */
  readonly #proven = new Map<string, RequestRate>();

  constructor({ clock, limit }: { clock: Clock; limit: RateLimit }) {
    this.#clock = clock;
    this.#limit = limit;
    this.#others = new RequestRate({ clock, ...limit });
  }

  /** Whether one more request of this address may be looked at now; counts it if so. */
  take(address: string): boolean {
    return (this.#proven.get(address) ?? this.#others).take();
  }

  /** A signed delivery that was new came from there: what is sent again may be anybody's. */
  prove(address: string): void {
    const rate = this.#proven.get(address) ?? new RequestRate({ clock: this.#clock, ...this.#limit });
    this.#proven.delete(address);
    this.#proven.set(address, rate);
    const [oldest] = this.#proven.keys();
    if (this.#proven.size > MAX_PROVEN && oldest !== undefined) this.#proven.delete(oldest);
  }
}
