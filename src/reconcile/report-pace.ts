import type { Clock } from "../core/clock.ts";

const SHORTEST_MS = 25;
/**
 * The loops report many small changes while sessions start and end; one reconcile after this delay handles them
 * together.
 */
const LONGEST_MS = 250;
/** After this long without a reconcile, the next change is handled quickly again. */
const QUIET_MS = 1_000;

/**
 * How soon an Environment is reconciled after its loops report a change. A rare change is handled at once, such as the
 * first answer of the queue. While changes continue, the delay doubles, up to four reconciles a second.
 */
export class ReportPace {
  readonly #clock: Clock;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #restMs = SHORTEST_MS;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Records a reconcile, whatever its cause. */
  looked(): void {
    const nowMs = this.#clock.monotonic();
    const isQuiet = nowMs - this.#lookedMs > QUIET_MS;
    this.#restMs = isQuiet ? SHORTEST_MS : Math.min(LONGEST_MS, 2 * this.#restMs);
    this.#lookedMs = nowMs;
  }

  /** How long a change waits for the next reconcile, in milliseconds. */
  get delayMs(): number {
    return Math.max(0, this.#lookedMs + this.#restMs - this.#clock.monotonic());
  }
}
