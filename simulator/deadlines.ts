import { MAX_TIMER_MS, type Timer } from "../src/core/clock.ts";
import type { SimulatorClock } from "./clock.ts";

/**
 * Times are sums of fractions. A deadline this close counts as due, so that a rounding error doesn't set another timer.
 */
export const ROUNDING_MS = 0.001;

/** A callback that is scheduled for one point in time. */
export interface Deadline {
  readonly at: number;
  cancel(): void;
}

interface Entry extends Deadline {
  readonly seq: number;
  run: (() => void) | undefined;
}

/**
 * Holds every scheduled callback in one heap with a single timer, so that thousands of leases cost one timer. Callbacks
 * that are due at the same time run in the order in which they were scheduled.
 */
export class Deadlines {
  readonly #clock: SimulatorClock;
  readonly #heap: Entry[] = [];
  #seq = 0;
  #timer: Timer | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #running = false;
  #closed = false;

  constructor(clock: SimulatorClock) {
    this.#clock = clock;
    clock.onRescale(() => {
      this.#disarm();
      this.#arm();
    });
  }

  /** Runs `run` at `at`, in milliseconds of the simulator's clock. If `at` has passed, it runs later in this turn. */
  at(at: number, run: () => void): Deadline {
    const entry: Entry = {
      at,
      seq: this.#seq++,
      run,
      cancel: () => {
        entry.run = undefined;
      },
    };
    if (this.#closed) return entry;
    this.#push(entry);
    if (!this.#running) this.#arm();
    return entry;
  }

  /** Runs `run` after `delayMs`. */
  after(delayMs: number, run: () => void): Deadline {
    return this.at(this.#clock.now() + delayMs, run);
  }

  /**
   * Runs what is due. The server calls it before every request, so that a late timer never lets a client renew a lapsed
   * lease.
   */
  runDue(): void {
    if (this.#running) return;
    this.#running = true;
    try {
      for (
        let top = this.#heap[0];
        top && (!top.run || top.at <= this.#clock.now() + ROUNDING_MS);
        top = this.#heap[0]
      ) {
        this.#pop();
        top.run?.();
      }
    } finally {
      this.#running = false;
      this.#arm();
    }
  }

  /** Cancels all deadlines and ignores new ones. */
  close(): void {
    this.#closed = true;
    this.#heap.length = 0;
    this.#disarm();
  }

  #arm(): void {
    const top = this.#heap[0];
    if (top && this.#timer && this.#timerAt === top.at) return;
    this.#disarm();
    if (!top) return;
    this.#timerAt = top.at;
    const wait = Math.min(Math.max(0, top.at - this.#clock.now()), MAX_TIMER_MS);
    this.#timer = this.#clock.setTimer(() => {
      this.#timer = undefined;
      this.runDue();
    }, wait);
  }

  #disarm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#timerAt = Number.POSITIVE_INFINITY;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent] as Entry;
      if (before(above, entry)) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      const right = heap[child + 1];
      if (right && before(right, heap[child] as Entry)) child += 1;
      const below = heap[child] as Entry;
      if (before(last, below)) break;
      heap[i] = below;
      i = child;
    }
    heap[i] = last;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.seq < b.seq);
}
