/**
 * An estimate of a server's clock from its Date headers. Each answer bounds the offset between the two clocks: the
 * header was true at some moment between sending and answer, and cut to whole seconds. The bounds of many answers
 * together are far narrower than a second. Offsets are against this process's monotonic clock, which nobody sets, and what
 * was learnt of them wears out as fast as clocks may drift apart.
 */
export class ServerTime {
  #lowMs = Number.NEGATIVE_INFINITY;
  #highMs = Number.POSITIVE_INFINITY;
  /** When the bounds were last true as they stand, on our clock. */
  #asOfMs = 0;
  readonly #wallOf: (ms: number) => number;

  /** @param wallOf our wall clock at a time of our monotonic one: all there is to go by before the first answer. */
  constructor(wallOf: (ms: number) => number = (ms) => ms) {
    this.#wallOf = wallOf;
  }

  /** @param sentMs @param answeredMs monotonic; @param dateMs the Date header, null where there was none */
  observe(sentMs: number, answeredMs: number, dateMs: number | null): void {
    if (dateMs === null || Number.isNaN(dateMs) || answeredMs < sentMs) return;
    const wornMs = (answeredMs - sentMs) * MAX_DRIFT;
    const low = dateMs - answeredMs - wornMs;
    const high = dateMs + DATE_GRAIN_MS - sentMs + wornMs;
    const known = this.#boundsAt(answeredMs);
    this.#asOfMs = answeredMs;
    // Bounds that exclude one another: the server's clock was set, or our machine slept. What was known is void.
    const reset = low > known.highMs || high < known.lowMs;
    this.#lowMs = reset ? low : Math.max(known.lowMs, low);
    this.#highMs = reset ? high : Math.min(known.highMs, high);
  }

  /** The earliest and the latest that the server's clock can have shown at `ms` of ours. Without any answer: `slack` around our wall clock. */
  at(ms: number, slackMs = UNKNOWN_SLACK_MS): { earliestMs: number; latestMs: number } {
    if (!Number.isFinite(this.#lowMs) || !Number.isFinite(this.#highMs)) {
      const wallMs = this.#wallOf(ms);
      return { earliestMs: wallMs - slackMs, latestMs: wallMs + slackMs };
    }
    const { lowMs, highMs } = this.#boundsAt(ms);
    return { earliestMs: ms + lowMs, latestMs: ms + highMs };
  }

  #boundsAt(ms: number): { lowMs: number; highMs: number } {
    const wornMs = Math.abs(ms - this.#asOfMs) * MAX_DRIFT;
    return { lowMs: this.#lowMs - wornMs, highMs: this.#highMs + wornMs };
  }
}

/** A Date header carries whole seconds (RFC 9110, 5.6.7). */
const DATE_GRAIN_MS = 1_000;

/** How far two clocks kept by NTP may lie apart when a server sends no Date. */
const UNKNOWN_SLACK_MS = 5_000;

/** How fast a clock may run wrong: what ntpd and the kernel's own adjustment allow at most (500 ppm). */
const MAX_DRIFT = 0.0005;
