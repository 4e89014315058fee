import { type Clock, realClock, type Timer } from "../../../src/core/clock.ts";

/** How a process stands still: stopped by a signal, which clocks do not notice, or with its whole machine. */
export type Stillness = "stopped" | "suspended";

/**
 * The clock of one operator, for a test to trouble: its wall time can be set, and its process can stand still, when none
 * of its timers runs. Of a suspended machine the monotonic clock stands still as well, and the wall clock goes on
 * (CLOCK_MONOTONIC, clock_gettime(2)). Its wall clock is not set back afterwards: nobody could notice how long it stood
 * (docs/high-availability.md), and so nothing is promised of that.
 */
export class TroubledClock implements Clock {
  #wallOffsetMs = 0;
  #behindMs = 0;
  #still: { readonly how: Stillness; readonly atMs: number } | undefined;
  #wasSuspended = false;
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

  /** Whether the wall clock may be set so far off. */
  mayBeSet(offsetMs: number): boolean {
    return offsetMs >= this.#wallOffsetMs || !this.#wasSuspended;
  }

  /** Whether the process may stand still: not with its machine while the wall clock is ahead, since that is put right later. */
  mayStand(how: Stillness): boolean {
    return how === "stopped" || this.#wallOffsetMs <= 0;
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
    this.#wasSuspended ||= how === "suspended";
  }

  /** Goes on; what was due meanwhile happens now, in the order of its time. */
  goOn(): void {
    if (!this.#still) return;
    if (this.#still.how === "suspended") this.#behindMs += realClock.monotonic() - this.#still.atMs;
    this.#still = undefined;
    for (const run of this.#due.splice(0)) run();
  }
}
