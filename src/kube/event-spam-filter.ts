import type { Clock } from "../core/clock.ts";

/** As client-go's EventSourceObjectSpamFilter: a burst for what happens in a short life, then one every five minutes. */
const BURST = 25;
const REFILL_MS = 300_000;
/** Objects whose buckets are remembered; the least recently used is forgotten, which gives it a full bucket again. */
const MAX_OBJECTS = 4096;

interface Bucket {
  tokens: number;
  at: number;
}

/** A token bucket for each object, so that one that flaps does not flood the API server. */
export class SpamFilter {
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes a token of the object; false when it has none left. */
  allow(object: string): boolean {
    const now = this.#clock.monotonic();
    const bucket = this.#buckets.get(object) ?? { tokens: BURST, at: now };
    bucket.tokens = Math.min(BURST, bucket.tokens + (now - bucket.at) / REFILL_MS);
    bucket.at = now;
    this.#buckets.delete(object);
    this.#buckets.set(object, bucket);
    if (this.#buckets.size > MAX_OBJECTS) this.#forgetOldest();
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  #forgetOldest(): void {
    const oldest = this.#buckets.keys().next();
    if (!oldest.done) this.#buckets.delete(oldest.value);
  }
}
