import type { State } from "./state.ts";

const FIRST_CAPACITY = 1 << 12;

/** FNV-1a. */
const OFFSET_BASIS = 0x811c9dc5;
const PRIME = 0x01000193;

/** Distinct states in the order of discovery: rows of bytes in one array, indexed by an open hash table. */
export class StateStore {
  readonly #width: number;
  #rows: Uint8Array;
  #table: Int32Array;
  #count = 0;

  /** @param width bytes of a state */
  constructor(width: number) {
    this.#width = width;
    this.#rows = new Uint8Array(width * FIRST_CAPACITY);
    this.#table = new Int32Array(FIRST_CAPACITY * 2).fill(-1);
  }

  get count(): number {
    return this.#count;
  }

  /** The row of a state. It is valid until the next state is added. */
  at(index: number): State {
    return this.#rows.subarray(index * this.#width, (index + 1) * this.#width);
  }

  /** Returns the state's index; the state is new if that equals the former `count`. */
  add(state: State): number {
    const slot = this.#slotOf(state);
    const known = this.#table[slot] ?? -1;
    if (known >= 0) return known;
    const index = this.#count;
    if ((index + 1) * this.#width > this.#rows.length) this.#rows = grown(this.#rows);
    this.#rows.set(state, index * this.#width);
    this.#table[slot] = index;
    this.#count += 1;
    if (this.#count * 2 > this.#table.length) this.#rehash();
    return index;
  }

  /** The table slot that holds the state or is free for it. */
  #slotOf(state: State): number {
    const mask = this.#table.length - 1;
    let slot = hashOf(state) & mask;
    for (;;) {
      const index = this.#table[slot] ?? -1;
      if (index < 0 || this.#isAt(index, state)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #isAt(index: number, state: State): boolean {
    const from = index * this.#width;
    for (let byte = 0; byte < this.#width; byte += 1) if (this.#rows[from + byte] !== state[byte]) return false;
    return true;
  }

  #rehash(): void {
    this.#table = new Int32Array(this.#table.length * 2).fill(-1);
    for (let index = 0; index < this.#count; index += 1) this.#table[this.#slotOf(this.at(index))] = index;
  }
}

function hashOf(state: State): number {
  let hash = OFFSET_BASIS;
  for (let byte = 0; byte < state.length; byte += 1) hash = Math.imul(hash ^ (state[byte] ?? 0), PRIME);
  return hash ^ (hash >>> 15);
}

function grown(rows: Uint8Array): Uint8Array {
  const larger = new Uint8Array(rows.length * 2);
  larger.set(rows);
  return larger;
}

/** Integers in a growing array. */
export class NumberList {
  #values = new Int32Array(FIRST_CAPACITY);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(value: number): void {
    if (this.#length === this.#values.length) {
      const larger = new Int32Array(this.#values.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#length] = value;
    this.#length += 1;
  }

  at(index: number): number {
    return this.#values[index] ?? 0;
  }
}
