/** So many starts are remembered. */
const REMEMBERED = 16;
/** A container that takes longer than so many times the usual is touched again: it is late for another cause. */
const PATIENCE = 2.5;
/** However slow the node: without a touch kubelet looks after 10 to 15 s. */
const LONGEST_MS = 4_000;

/**
 * How long containers take from a touch of their Pod to their start, of late. A touch that kubelet misses is repeated; one
 * that it has not got to is not missed, and more of them would only keep it, and the API server, from what they have to do.
 */
export class StartTimes {
  readonly #sinceTouchMs: number[] = [];

  /** A container was seen to run so long after the last touch of its Pod, in milliseconds. */
  note(sinceTouchMs: number): void {
    this.#sinceTouchMs.push(sinceTouchMs);
    if (this.#sinceTouchMs.length > REMEMBERED) this.#sinceTouchMs.shift();
  }

  /** How long to wait for a start before the Pod is touched again; 0: nothing is known. */
  get patienceMs(): number {
    const sorted = this.#sinceTouchMs.toSorted((one, other) => one - other);
    const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
    return Math.min(LONGEST_MS, median * PATIENCE);
  }
}
