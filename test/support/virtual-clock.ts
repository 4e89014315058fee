/** A clock that tests move by hand. */
import { setImmediate as macrotask } from "node:timers/promises";
import type { Clock, Timer } from "../../src/core/clock.ts";
import { DueHeap } from "../../src/core/due-heap.ts";

/** An epoch far from 0, so that tests detect a rule that mixes up the two clocks. */
export const VIRTUAL_EPOCH_MS = Date.UTC(2030, 0, 1);

/** Event loop rounds in which promise chains settle between timers; each round drains all microtasks. */
const SETTLE_ROUNDS = 3;

/** A loop that sets zero-delay timers forever must fail the test instead of hanging it. */
const MAX_TIMERS_PER_ADVANCE = 100_000;

/** No real timer has a finer resolution. */
const FINEST_MS = 0.001;

interface Armed {
  readonly fn: () => void;
}

/**
 * A clock that moves only when a test moves it. Timers run in order of their time, then of their creation. Between two
 * timers, everything that waits for promises (not for sockets) can run.
 */
export class VirtualClock implements Clock {
  #monotonic = 1_000;
  #wallOffset: number;
  readonly #timers = new DueHeap<Armed>();

  constructor(epochMs: number = VIRTUAL_EPOCH_MS) {
    this.#wallOffset = epochMs - this.#monotonic;
  }

  now(): number {
    return this.#monotonic + this.#wallOffset;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  setTimer(fn: () => void, delayMs: number): Timer {
    const armed: Armed = { fn };
    // A rounding remainder can be too small to change the time; waiting for it would never end.
    const waitMs = delayMs > 0 ? Math.max(FINEST_MS, delayMs) : 0;
    this.#timers.set(armed, this.#monotonic + waitMs);
    return { cancel: () => this.#timers.remove(armed) };
  }

  /** The number of pending timers. */
  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Milliseconds to the next timer; undefined if there is none. */
  get nextTimerMs(): number | undefined {
    const { nextMs } = this.#timers;
    return nextMs === undefined ? undefined : Math.max(0, nextMs - this.#monotonic);
  }

  /** Moves both clocks by `ms`, runs due timers in order, and lets promises settle. */
  async advance(ms: number): Promise<void> {
    const end = this.#monotonic + ms;
    await this.settle();
    for (let ran = 0; ; ran += 1) {
      if (ran > MAX_TIMERS_PER_ADVANCE) throw new Error("virtual clock: timers are re-armed without end");
      const due = this.#timers.take(end);
      if (!due) break;
      this.#monotonic = Math.max(this.#monotonic, due.atMs);
      due.key.fn();
      await this.settle();
    }
    this.#monotonic = Math.max(this.#monotonic, end);
    await this.settle();
  }

  /** Moves the clock to the next timer and runs it. Returns false if there is none. */
  async advanceToNext(): Promise<boolean> {
    await this.settle();
    const wait = this.nextTimerMs;
    if (wait === undefined) return false;
    await this.advance(wait);
    return true;
  }

  /** Advances in steps until `condition` holds; throws if it does not within `limitMs`. */
  async advanceUntil(condition: () => boolean, limitMs: number, stepMs = 100): Promise<void> {
    await this.settle();
    for (let passed = 0; !condition(); passed += stepMs) {
      if (passed >= limitMs) throw new Error(`virtual clock: the condition did not hold within ${limitMs} ms`);
      await this.advance(stepMs);
    }
  }

  /** Moves only the wall clock, like a correction by NTP or by hand; a negative value moves it back. */
  jumpWall(ms: number): void {
    this.#wallOffset += ms;
  }

  /**
   * Simulates a process that is not scheduled for `ms` (SIGSTOP, a frozen container): both clocks move, and no timer
   * runs before the next `advance`. With `suspended`, the machine sleeps: Linux's monotonic clock stops, and only the
   * wall time moves.
   */
  pause(ms: number, options: { suspended?: boolean } = {}): void {
    if (options.suspended) this.#wallOffset += ms;
    else this.#monotonic += ms;
  }

  /** Lets everything that waits for promises run. */
  async settle(): Promise<void> {
    for (let round = 0; round < SETTLE_ROUNDS; round += 1) await macrotask();
  }
}
