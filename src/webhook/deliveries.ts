import type { Clock } from "../core/clock.ts";
import { TOLERANCE_SECONDS } from "./signature.ts";

const SECOND_MS = 1_000;
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
