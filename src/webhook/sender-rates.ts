import type { Clock } from "../core/clock.ts";
import { RequestRate } from "./deliveries.ts";

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
