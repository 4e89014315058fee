import { type Clock, realClock, type Timer } from "../../../src/core/clock.ts";

/** How a process stands still: stopped by a signal, which clocks do not notice, or with its whole machine. */
export type Stillness = "stopped" | "suspended";

/**
 * The clock of one operator, for a test to trouble: its wall time can be set, and its process can stand still, when none
 * of its timers runs. Of a suspended machine the monotonic clock stands still as well, and the wall clock goes on
 * (CLOCK_MONOTONIC, clock_gettime(2)).
 */
export class TroubledClock implements Clock {
  #wallOffsetMs = 0;
  #behindMs = 0;
  #still: { readonly how: Stillness; readonly atMs: number } | undefined;
  #due: (() => void)[] = [];

  now(): number {
    return realClock.now() + this.#wallOffsetMs;
  }

  monotonic(): number {
    const atMs = this.#still?.how === "suspended" ? this.#still.atMs : realClock.monotonic();
    return atMs - this.#behindMs;
  }

  setTimer(fn: () => void, delayMs: number): Timer {
    let cancelled = false;
    const run = () => {
      if (cancelled) return;
      if (this.#still) this.#due.push(run);
      else fn();
    };
    const timer = realClock.setTimer(run, delayMs);
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  /** Sets the wall clock this much before (negative) or after the right time. */
  setWall(offsetMs: number): void {
    this.#wallOffsetMs = offsetMs;
  }

  get isStill(): boolean {
    return this.#still !== undefined;
  }

  stand(how: Stillness): void {
    this.#still ??= { how, atMs: realClock.monotonic() };
  }

  /** Goes on; what was due meanwhile happens now, in the order of its time. */
  goOn(): void {
    if (!this.#still) return;
    if (this.#still.how === "suspended") this.#behindMs += realClock.monotonic() - this.#still.atMs;
    this.#still = undefined;
    for (const run of this.#due.splice(0)) run();
  }
}
