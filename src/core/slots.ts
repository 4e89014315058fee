/**
 * Limits how many acts run at the same time; others wait in order. If a slot is free, the act starts in the same turn
 * of the event loop. There is no timeout here: each act must bound itself.
 */
export class Slots {
  readonly #most: number;
  readonly #waiting: (() => void)[] = [];
  /**
   * Index of the first waiter. Removing from the front of an array is expensive, so taken waiters are removed in bulk.
   */
  #first = 0;
  #used = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Number of running acts. */
  get used(): number {
    return this.#used;
  }

  /** Number of waiting acts. */
  get waiting(): number {
    return this.#waiting.length - this.#first;
  }

  async run<T>(act: () => Promise<T>): Promise<T> {
    if (this.#used < this.#most) this.#used += 1;
    // A finished act passes its slot to the first waiter, so a newcomer cannot take it.
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await act();
    } finally {
      this.#handOver();
    }
  }

  #handOver(): void {
    const next = this.#waiting[this.#first];
    if (next === undefined) {
      this.#used -= 1;
      return;
    }
    this.#first += 1;
    if (this.#first * 2 > this.#waiting.length) {
      this.#waiting.splice(0, this.#first);
      this.#first = 0;
    }
    next();
  }
}
