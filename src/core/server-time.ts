/**
 * An estimate of a server's clock, against this process's monotonic one, which nobody sets.
 *
 * Its Date headers tell most: each was true at some moment between sending and answer, cut to whole seconds, and the bounds
 * of many answers together are far narrower than a second. But whoever writes them (a load balancer, a content network) need
 * not be who stamps what the answers tell of. So stamps are noted as well, and judged by one another.
 */
export class ServerTime {
  readonly #dates = new OffsetBounds();
  readonly #stamps = new OffsetBounds();
  readonly #wallOf: (ms: number) => number;

  /** @param wallOf our wall clock at a time of our monotonic one: all there is to go by before the first answer. */
  constructor(wallOf: (ms: number) => number = (ms) => ms) {
    this.#wallOf = wallOf;
  }

  /** @param sentMs @param answeredMs monotonic; @param dateMs the Date header, null where there was none */
  observe(sentMs: number, answeredMs: number, dateMs: number | null): void {
    if (dateMs === null) return;
    this.#dates.narrow({ fromMs: sentMs, untilMs: answeredMs }, { fromMs: dateMs, beforeMs: dateMs + DATE_GRAIN_MS });
  }

  /**
   * Something happened on the server within a span of our monotonic clock, and it says that it was at `stamped`. One
   * that is older than it can be is not believed before another one says the same: a server may stamp a second time with the first
   * one's text. Returns whether it is believed.
   */
  noteStamp(within: { fromMs: number; untilMs: number }, stamped: { fromMs: number; beforeMs: number }): boolean {
    return this.#stamps.narrow(within, stamped, { doubts: true });
  }

  /**
   * The earliest and the latest that the server's clock can have shown at `ms` of ours: the clock of its Date headers, as
   * long as its stamps can agree with that to `CLOCKS_APART_MS`: they come seldom, so what they tell wears out. Without any
   * answer: `slack` around our wall clock.
   */
  at(ms: number, slackMs = UNKNOWN_SLACK_MS): { earliestMs: number; latestMs: number } {
    const [dates, stamps] = [this.#dates.at(ms), this.#stamps.at(ms)];
    const isApart = dates && stamps && distance(dates, stamps) > CLOCKS_APART_MS;
    const offset = isApart ? stamps : (dates ?? stamps);
    if (offset) return { earliestMs: ms + offset.lowMs, latestMs: ms + offset.highMs };
    const wallMs = this.#wallOf(ms);
    return { earliestMs: wallMs - slackMs, latestMs: wallMs + slackMs };
  }

  /** What is stamped earlier than this happened before `ms` of our monotonic clock. -Infinity before the first stamp. */
  earliestStampAt(ms: number): number {
    return ms + (this.#stamps.at(ms)?.lowMs ?? Number.NEGATIVE_INFINITY) - STAMPS_APART_MS;
  }
}

interface Offset {
  readonly lowMs: number;
  readonly highMs: number;
}

/** What a server's clock is ahead of ours, at least and at most. It wears out as fast as clocks may drift apart. */
class OffsetBounds {
  #known: Offset | null = null;
  /** When the bounds were true as they stand, on our clock. */
  #asOfMs = 0;
  /** What excluded them, once. */
  #doubted: Offset | null = null;

  /**
   * The server's clock showed something of `shown` at some moment of `within`, which is of our clock. With `doubts`, what is
   * older than anything known allows has to be seen twice. Returns whether it is believed.
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
    // Bounds that exclude one another: the server's clock was set, or our machine slept. What was known is void.
    this.#known =
      !known || excludes
        ? seen
        : { lowMs: Math.max(known.lowMs, seen.lowMs), highMs: Math.min(known.highMs, seen.highMs) };
    return true;
  }

  /** The bounds at a time of our clock; null: nothing is known. */
  at(ms: number): Offset | null {
    if (!this.#known) return null;
    const wornMs = Math.abs(ms - this.#asOfMs) * MAX_DRIFT;
    return { lowMs: this.#known.lowMs - wornMs, highMs: this.#known.highMs + wornMs };
  }
}

/** What lies between two bounds; 0 or less: they can both be true. */
function distance(one: Offset, other: Offset): number {
  return Math.max(one.lowMs - other.highMs, other.lowMs - one.highMs);
}

/** How far the clocks of machines behind one address may lie apart, whatever they do: NTP holds them far closer. */
export const CLOCKS_APART_MS = 1_000;

/** The same of those that stamp: they are of one service, and side by side. */
export const STAMPS_APART_MS = 100;

/** A Date header carries whole seconds (RFC 9110, 5.6.7). */
const DATE_GRAIN_MS = 1_000;

/** How far two clocks kept by NTP may lie apart when a server sends no Date. */
const UNKNOWN_SLACK_MS = 5_000;

/** How fast a clock may run wrong: what ntpd and the kernel's own adjustment allow at most (500 ppm). */
const MAX_DRIFT = 0.0005;
