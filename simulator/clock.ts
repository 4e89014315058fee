import type { Clock, Timer } from "../src/core/clock.ts";

/**
 * The simulator's own time: wall time when it starts, running `scale` times as fast as the clock beneath. All times
 * that the simulator measures or shows (leases, reclaim windows, long polls, the Date header) are on this clock.
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

  /** Changes the pace from now on; time that has passed stays as it was. @throws {RangeError} not a positive number. */
  rescale(scale: number): void {
    this.#origin = this.monotonic();
    this.#baseOrigin = this.#base.monotonic();
    this.#scale = checkScale(scale);
    for (const listener of this.#onRescale) listener();
  }

  /** Timers that were set before a rescale keep their old pace: whoever set one re-arms it here. */
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

/** RFC 3339 with microseconds, from whole microseconds since the epoch. */
export function timestampUs(us: number): string {
  const ms = Math.floor(us / US_PER_MS);
  const rest = String(us - ms * US_PER_MS).padStart(3, "0");
  return `${new Date(ms).toISOString().slice(0, -1)}${rest}Z`;
}

/** RFC 3339 with microseconds, from milliseconds since the epoch. */
export function timestamp(ms: number): string {
  return timestampUs(Math.floor(ms * US_PER_MS));
}
