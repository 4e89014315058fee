/**
 * So many at a time, whoever they are; more wait in order. An act is begun in the same turn of the event loop where there is
 * room. Acts bound themselves: nothing here ends a wait.
 */
export class Slots {
  readonly #most: number;
  readonly #waiting: (() => void)[] = [];
  /** Where the queue begins: what was taken out before is cut off by halves, since an array's beginning is dear to cut. */
  #first = 0;
  #used = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Acts under way. */
  get used(): number {
    return this.#used;
  }

  /** Acts that wait. */
  get waiting(): number {
    return this.#waiting.length - this.#first;
  }

  async run<T>(act: () => Promise<T>): Promise<T> {
    if (this.#used < this.#most) this.#used += 1;
    // Whoever ends hands its slot over: nobody who comes in between takes it.
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
