import type { Clock } from "../core/clock.ts";

const SHORTEST_MS = 25;
/** Loops report many small changes while sessions come and go: one look so much later sees them all at once. */
const LONGEST_MS = 250;
/** After so long without a look the next changes are news again. */
const QUIET_MS = 1_000;

/**
 * How soon an Environment is looked at again after its loops changed something: at once where that is rare, as when it was
 * just added and its queue answers for the first time, and ever later, up to four times a second, while it goes on.
 */
export class ReportPace {
  readonly #clock: Clock;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #restMs = SHORTEST_MS;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** It was looked at, whatever for. */
  looked(): void {
    const nowMs = this.#clock.monotonic();
    const isQuiet = nowMs - this.#lookedMs > QUIET_MS;
    this.#restMs = isQuiet ? SHORTEST_MS : Math.min(LONGEST_MS, 2 * this.#restMs);
    this.#lookedMs = nowMs;
  }

  /** How long a change has to wait for the next look, in milliseconds. */
  get delayMs(): number {
    return Math.max(0, this.#lookedMs + this.#restMs - this.#clock.monotonic());
  }
}
