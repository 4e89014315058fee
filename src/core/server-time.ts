/**
 * Estimates a server's clock relative to this process's monotonic clock, which no administrator sets.
 *
 * Date headers are the main source. Each was true at some moment between sending and answer, cut to whole seconds. The
 * bounds of many answers together are far narrower than a second. But a load balancer or CDN may write the Date header,
 * while another machine writes the timestamps in the body. So timestamps are recorded separately and compared only with
 * one another.
 */
export class ServerTime {
  readonly #dates = new OffsetBounds();
  readonly #stamps = new OffsetBounds();
  readonly #wallOf: (ms: number) => number;

  /** @param wallOf our wall clock at a monotonic time, the only estimate before the first answer. */
  constructor(wallOf: (ms: number) => number = (ms) => ms) {
    this.#wallOf = wallOf;
  }

  /** @param sentMs @param answeredMs monotonic; @param dateMs the Date header, null if the answer had none. */
  observe(sentMs: number, answeredMs: number, dateMs: number | null): void {
    if (dateMs === null) return;
    this.#dates.narrow({ fromMs: sentMs, untilMs: answeredMs }, { fromMs: dateMs, beforeMs: dateMs + DATE_GRAIN_MS });
  }

  /**
   * Records a timestamp `stamped` of a server event that happened within a span of our monotonic clock. A timestamp
   * that is older than the bounds allow is rejected until a second one agrees with it: a server may answer a second
   * request with the first one's timestamp.
   * @returns whether the timestamp was accepted.
   */
  noteStamp(within: { fromMs: number; untilMs: number }, stamped: { fromMs: number; beforeMs: number }): boolean {
    return this.#stamps.narrow(within, stamped, { doubts: true });
  }

  /**
   * The earliest and latest time that the server's clock can have shown at `ms` of our clock. Date headers count as
   * long as the timestamps agree with them to `CLOCKS_APART_MS`. Timestamps are rarer, so their bounds widen more.
   * Without any answer the result is our wall clock plus or minus `slackMs`.
   */
  at(ms: number, slackMs = UNKNOWN_SLACK_MS): { earliestMs: number; latestMs: number } {
    const [dates, stamps] = [this.#dates.at(ms), this.#stamps.at(ms)];
    const isApart = dates && stamps && distance(dates, stamps) > CLOCKS_APART_MS;
    const offset = isApart ? stamps : (dates ?? stamps);
    if (offset) return { earliestMs: ms + offset.lowMs, latestMs: ms + offset.highMs };
    const wallMs = this.#wallOf(ms);
    return { earliestMs: wallMs - slackMs, latestMs: wallMs + slackMs };
  }

  /** A timestamp below this belongs to an event before `ms` of our monotonic clock. -Infinity without timestamps. */
  earliestStampAt(ms: number): number {
    return ms + (this.#stamps.at(ms)?.lowMs ?? Number.NEGATIVE_INFINITY) - STAMPS_APART_MS;
  }
}

interface Offset {
  readonly lowMs: number;
  readonly highMs: number;
}

/** Bounds on how far a server's clock is ahead of ours. They widen as fast as clocks may drift apart. */
class OffsetBounds {
  #known: Offset | null = null;
  /** When the bounds were exact, on our clock. */
  #asOfMs = 0;
  /** The last observation that contradicted the bounds, if it was rejected. */
  #doubted: Offset | null = null;

  /**
   * Narrows the bounds: the server's clock showed a time of `shown` at some moment of `within`, which is on our clock.
   * With `doubts`, an observation that is older than the bounds allow must be made twice.
   * @returns whether the observation was accepted.
   */
  narrow(
    within: { fromMs: number; untilMs: number },
    shown: { fromMs: number; beforeMs: number },
    { doubts = false } = {},
  ): boolean {
    const { fromMs, untilMs } = within;
    if (Number.isNaN(shown.fromMs) || untilMs < fromMs) return false;
    const wornMs = (untilMs - fromMs) * MAX_DRIFT;
    const seen = { lowMs: shown.fromMs - untilMs - wornMs, highMs: shown.beforeMs - fromMs + wornMs };
    const known = this.at(untilMs);
    const excludes = known !== null && distance(known, seen) > 0;
    const isOld = known !== null && seen.highMs < known.lowMs;
    if (isOld && doubts && !(this.#doubted && distance(this.#doubted, seen) <= CLOCKS_APART_MS)) {
      this.#doubted = seen;
      return false;
    }
    this.#doubted = null;
    this.#asOfMs = untilMs;
    // The bounds contradict one another: the server's clock was set, or our machine slept. Discard the old bounds.
    this.#known =
      !known || excludes
        ? seen
        : { lowMs: Math.max(known.lowMs, seen.lowMs), highMs: Math.min(known.highMs, seen.highMs) };
    return true;
  }

  /** The bounds at a time of our clock; null while nothing is known. */
  at(ms: number): Offset | null {
    if (!this.#known) return null;
    const wornMs = Math.abs(ms - this.#asOfMs) * MAX_DRIFT;
    return { lowMs: this.#known.lowMs - wornMs, highMs: this.#known.highMs + wornMs };
  }
}

/** The gap between two bounds. When it is 0 or less, both can be true. */
function distance(one: Offset, other: Offset): number {
  return Math.max(one.lowMs - other.highMs, other.lowMs - one.highMs);
}

/** How far the clocks of machines behind one address may differ. NTP keeps them far closer. */
export const CLOCKS_APART_MS = 1_000;

/** The same for machines that write timestamps: they belong to one service and run side by side. */
export const STAMPS_APART_MS = 100;

/** A Date header carries whole seconds (RFC 9110, 5.6.7). */
const DATE_GRAIN_MS = 1_000;

/** How far two clocks kept by NTP may differ, for a server that sends no Date. */
const UNKNOWN_SLACK_MS = 5_000;

/** Maximum clock drift: ntpd and the kernel's adjustment allow at most 500 ppm. */
const MAX_DRIFT = 0.0005;
