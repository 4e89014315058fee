interface Entry<K> {
  readonly key: K;
  readonly atMs: number;
  readonly order: number;
  live: boolean;
}

/** Dead entries are removed once they exceed twice the live ones by this number: a few are not worth the sort. */
const MOST_DEAD = 64;

/**
 * Keys with one time each, earliest first. One timer serves thousands of keys. Keys with the same time come in the
 * order in which they were set. Setting, removing and taking cost the logarithm of the size.
 */
export class DueHeap<K> {
  // A replaced or removed entry stays in the heap, dead, until it reaches the top or there are too many dead entries.
  // Without that limit they add up when a key's time is replaced often by an earlier one.
  readonly #heap: Entry<K>[] = [];
  readonly #entries = new Map<K, Entry<K>>();
  #order = 0;

  get size(): number {
    return this.#entries.size;
  }

  /** Entries in memory, dead ones included. */
  get held(): number {
    return this.#heap.length;
  }

  /** The time of the earliest key; undefined when there is none. */
  get nextMs(): number | undefined {
    return this.#top()?.atMs;
  }

  /** The key's time; undefined when it has none. */
  timeOf(key: K): number | undefined {
    return this.#entries.get(key)?.atMs;
  }

  /** Sets the key's time and replaces any previous time. */
  set(key: K, atMs: number): void {
    this.remove(key);
    const entry = { key, atMs, order: this.#order, live: true };
    this.#order += 1;
    this.#entries.set(key, entry);
    this.#push(entry);
  }

  remove(key: K): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    entry.live = false;
    this.#entries.delete(key);
    if (this.#heap.length > 2 * this.#entries.size + MOST_DEAD) this.#bury();
  }

  clear(): void {
    this.#heap.length = 0;
    this.#entries.clear();
  }

  /** Removes and returns the earliest key and its time, if that time is not after `nowMs`. */
  take(nowMs: number): { readonly key: K; readonly atMs: number } | undefined {
    const top = this.#top();
    if (!top || top.atMs > nowMs) return undefined;
    this.remove(top.key);
    return top;
  }

  #top(): Entry<K> | undefined {
    for (let top = this.#heap[0]; top; top = this.#heap[0]) {
      if (top.live) return top;
      this.#pop();
    }
    return undefined;
  }

  #bury(): void {
    // A sorted array is a valid heap.
    const live = [...this.#entries.values()].sort((a, b) => (isBefore(a, b) ? -1 : 1));
    this.#heap.length = 0;
    for (const entry of live) this.#heap.push(entry);
  }

  #push(entry: Entry<K>): void {
    const heap = this.#heap;
    let index = heap.length;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent];
      if (!above || isBefore(above, entry)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let index = 0;
    for (;;) {
      const left = 2 * index + 1;
      const [one, other] = [heap[left], heap[left + 1]];
      const child = one && other && isBefore(other, one) ? left + 1 : left;
      const below = heap[child];
      if (!below || isBefore(last, below)) break;
      heap[index] = below;
      index = child;
    }
    heap[index] = last;
  }
}

function isBefore<K>(a: Entry<K>, b: Entry<K>): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
