const MS_PER_MINUTE = 60_000;

/** A token bucket with the capacity of one minute: after a quiet minute, `perMinute` requests may come at once. */
export class RateLimit {
  #tokens: number;
  #at: number;
  readonly #perMinute: number;

  constructor(perMinute: number, now: number) {
    this.#perMinute = perMinute;
    this.#tokens = perMinute;
    this.#at = now;
  }

  /** @returns 0 if the request may pass, otherwise the number of seconds until the next one may */
  take(now: number): number {
    const perMs = this.#perMinute / MS_PER_MINUTE;
    this.#tokens = Math.min(this.#perMinute, this.#tokens + (now - this.#at) * perMs);
    this.#at = now;
    if (this.#tokens >= 1) {
      this.#tokens -= 1;
      return 0;
    }
    return Math.max(1, Math.ceil((1 - this.#tokens) / perMs / 1000));
  }
}
