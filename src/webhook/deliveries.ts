import { type Clock, SECOND_MS } from "../core/clock.ts";
import { TOLERANCE_SECONDS } from "./signature.ts";

/** After this time a delivery is too old to be accepted again, for any clock skew within the tolerance. */
const REMEMBERED_MS = 2 * TOLERANCE_SECONDS * SECOND_MS;
/** At most some megabytes. Forgetting an id early only costs an extra poll. */
const MAX_REMEMBERED = 20_000;

/** The ids of accepted deliveries. The platform may send one several times, and anyone can replay it. */
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

  /** Returns true on the first call for an id. */
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

/** Allows a number of requests per second, and a burst after a pause. */
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

  /** Whether one more request is allowed now; counts it if so. */
  take(): boolean {
    const nowMs = this.#clock.monotonic();
    this.#left = Math.min(this.#burst, this.#left + ((nowMs - this.#countedMs) / SECOND_MS) * this.#perSecond);
    this.#countedMs = nowMs;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }
}

/** The platform sends from a few addresses, or through one proxy. Each other replica has one address. */
export const MAX_PROVEN = 64;

export interface RateLimit {
  readonly perSecond: number;
  readonly burst: number;
}

/**
 * Rate limits of requests: one for each address that sent new, signed deliveries, and one that all other addresses
 * share. So a flood from elsewhere takes nothing from known senders. Senders behind one proxy share its address, and
 * its limit.
 */
export class SenderRates {
  readonly #clock: Clock;
  readonly #limit: RateLimit;
  readonly #others: RequestRate;
  /** Ordered by the last signed delivery, oldest first. */
  readonly #proven = new Map<string, RequestRate>();

  constructor({ clock, limit }: { clock: Clock; limit: RateLimit }) {
    this.#clock = clock;
    this.#limit = limit;
    this.#others = new RequestRate({ clock, ...limit });
  }

  /** Whether one more request of this address is allowed now; counts it if so. */
  take(address: string): boolean {
    return (this.#proven.get(address) ?? this.#others).take();
  }

  /**
   * Records an address that sent a signed, new delivery. A replayed delivery proves nothing, because anyone can send
   * it.
   */
  prove(address: string): void {
    const rate = this.#proven.get(address) ?? new RequestRate({ clock: this.#clock, ...this.#limit });
    this.#proven.delete(address);
    this.#proven.set(address, rate);
    const [oldest] = this.#proven.keys();
    if (this.#proven.size > MAX_PROVEN && oldest !== undefined) this.#proven.delete(oldest);
  }
}
