import { type Clock, realClock, type Timer } from "../../../src/core/clock.ts";

/** How a process is paused: stopped by a signal, which clocks do not notice, or suspended with its whole machine. */
export type Stillness = "stopped" | "suspended";

/**
 * The clock of one operator, which a test can disturb. Its wall time can be set, and its process can be paused, during
 * which no timer runs. On a suspended machine the monotonic clock stops too, while the wall clock continues
 * (CLOCK_MONOTONIC, clock_gettime(2)). After a suspension the wall clock is never set back: then no process could tell
 * how long the machine was suspended, so Berth promises nothing for that case (docs/high-availability.md).
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

  /** Whether the wall clock may be set to this offset. */
  mayBeSet(offsetMs: number): boolean {
    return offsetMs >= this.#wallOffsetMs || !this.#wasSuspended;
  }

  /**
   * Whether the process may be paused. The machine can't be suspended while its wall clock is ahead, because that is
   * corrected later.
   */
  mayStand(how: Stillness): boolean {
    return how === "stopped" || this.#wallOffsetMs <= 0;
  }

  /** Sets the wall clock this far behind (negative) or ahead of the real time. */
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

  /** Resumes. Timers that came due meanwhile run now, in order of their time. */
  goOn(): void {
    if (!this.#still) return;
    if (this.#still.how === "suspended") this.#behindMs += realClock.monotonic() - this.#still.atMs;
    this.#still = undefined;
    for (const run of this.#due.splice(0)) run();
  }
}
