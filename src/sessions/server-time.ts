/**
 * An estimate of the Work API's clock from its Date headers. Each answer bounds the offset between the two clocks: the
 * header was true at some moment between sending and answer, and cut to whole seconds. The bounds of many answers
 * together are far narrower than a second. Offsets are against this process's wall clock.
 */
export class ServerTime {
  #lowMs = Number.NEGATIVE_INFINITY;
  #highMs = Number.POSITIVE_INFINITY;

  /** @param sentMs @param answeredMs wall clock; @param dateMs the Date header, null where there was none */
  observe(sentMs: number, answeredMs: number, dateMs: number | null): void {
    if (dateMs === null || answeredMs < sentMs) return;
    const low = dateMs - answeredMs;
    const high = dateMs + DATE_GRAIN_MS - sentMs;
    if (low > this.#highMs || high < this.#lowMs) {
      // One of the clocks was set: what was known of their distance is void.
      this.#lowMs = low;
      this.#highMs = high;
      return;
    }
    this.#lowMs = Math.max(this.#lowMs, low);
    this.#highMs = Math.min(this.#highMs, high);
  }

  /** The earliest and the latest that the server's clock can have shown at `wallMs` of ours. Without any answer: `slack` around ours. */
  at(wallMs: number, slackMs = UNKNOWN_SLACK_MS): { earliestMs: number; latestMs: number } {
    if (!Number.isFinite(this.#lowMs) || !Number.isFinite(this.#highMs)) {
      return { earliestMs: wallMs - slackMs, latestMs: wallMs + slackMs };
    }
    return { earliestMs: wallMs + this.#lowMs, latestMs: wallMs + this.#highMs };
  }
}

/** A Date header carries whole seconds (RFC 9110, 5.6.7). */
const DATE_GRAIN_MS = 1_000;

/** How far two clocks kept by NTP may lie apart when a server sends no Date. */
const UNKNOWN_SLACK_MS = 5_000;
