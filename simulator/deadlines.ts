import { MAX_TIMER_MS, type Timer } from "../src/core/clock.ts";
import type { SimulatorClock } from "./clock.ts";

/** Times are sums of fractions: what is due within this much is due now, lest a timer be set for a rounding error. */
export const ROUNDING_MS = 0.001;

/** One thing that is to happen at one time. */
export interface Deadline {
  readonly at: number;
  cancel(): void;
}

interface Entry extends Deadline {
  readonly seq: number;
  run: (() => void) | undefined;
}

/**
 * Everything that happens by the clock, in one heap with one timer: thousands of leases cost one timer. Entries of one
 * instant run in the order they were made.
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

  /** Runs `run` at `at` (milliseconds of the simulator's clock), or at once, later in this turn, when that has passed. */
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

  /** Runs what is due. Called before every request, so that a late timer never lets a lapsed lease be renewed. */
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

  /** Nothing happens by the clock any more. */
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
