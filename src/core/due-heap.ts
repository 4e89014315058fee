interface Entry<K> {
  readonly key: K;
  readonly atMs: number;
  readonly order: number;
  live: boolean;
}

/** Dead entries are cleared away when there are so many more of them than of live ones: seldom, and not for a few. */
const MOST_DEAD = 64;

/**
 * Keys with one time each, earliest first: thousands of them cost their owner one timer. Keys of one time come in the
 * order in which they were set. Setting, removing and taking cost the logarithm of the size.
 */
export class DueHeap<K> {
  // An entry that was replaced or removed stays in the heap, dead, until it comes to the top or there are too many of them:
  // of a key whose time is replaced ten times a second by an earlier one they would add up until the later times come.
  readonly #heap: Entry<K>[] = [];
  readonly #entries = new Map<K, Entry<K>>();
  #order = 0;

  get size(): number {
    return this.#entries.size;
  }

  /** Entries in memory: those of keys, and dead ones. */
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

  /** Gives the key this time, in place of any it had. */
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

  /** Takes out the earliest key if its time has come by `nowMs`, and says which time that was. */
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
    // In their order they are a heap.
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
