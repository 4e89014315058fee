import type { Clock, Timer } from "../src/core/clock.ts";

/**
 * The simulator's own clock. It starts at the wall time and runs `scale` times as fast as the base clock. Everything
 * that the simulator measures or shows (leases, reclaim windows, long polls, the Date header) uses this clock.
 */
export class SimulatorClock implements Clock {
  readonly #base: Clock;
  readonly #startedAt: number;
  readonly #onRescale = new Set<() => void>();
  #scale: number;
  #baseOrigin: number;
  #origin = 0;

  constructor(base: Clock, scale: number) {
    this.#base = base;
    this.#startedAt = base.now();
    this.#baseOrigin = base.monotonic();
    this.#scale = checkScale(scale);
  }

  get scale(): number {
    return this.#scale;
  }

  /** Changes the speed from now on, without changing the current time. @throws {RangeError} not a positive number */
  rescale(scale: number): void {
    this.#origin = this.monotonic();
    this.#baseOrigin = this.#base.monotonic();
    this.#scale = checkScale(scale);
    for (const listener of this.#onRescale) listener();
  }

  /**
   * Calls `listener` after each rescale. Timers that are already set keep their old speed, so their owner must set them
   * again.
   */
  onRescale(listener: () => void): void {
    this.#onRescale.add(listener);
  }

  now(): number {
    return this.#startedAt + this.monotonic();
  }

  monotonic(): number {
    return this.#origin + (this.#base.monotonic() - this.#baseOrigin) * this.#scale;
  }

  setTimer(fn: () => void, delayMs: number): Timer {
    return this.#base.setTimer(fn, delayMs / this.#scale);
  }
}

function checkScale(scale: number): number {
  if (!Number.isFinite(scale) || scale <= 0) throw new RangeError(`scale must be a number above 0, not ${scale}`);
  return scale;
}

const US_PER_MS = 1000;

/** Formats whole microseconds since the epoch as RFC 3339 with microseconds. */
export function timestampUs(us: number): string {
  const ms = Math.floor(us / US_PER_MS);
  const rest = String(us - ms * US_PER_MS).padStart(3, "0");
  return `${new Date(ms).toISOString().slice(0, -1)}${rest}Z`;
}

/** Formats milliseconds since the epoch as RFC 3339 with microseconds. */
export function timestamp(ms: number): string {
  return timestampUs(Math.floor(ms * US_PER_MS));
}
