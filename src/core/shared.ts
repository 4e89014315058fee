/** When there are more distinct values than this, few of them repeat: clear the memory. */
const MOST = 4_096;

/** Longer values rarely repeat, and remembering them would cost what sharing saves. */
const LONGEST = 512;

/**
 * Keeps one copy of values that many objects repeat. JSON.parse turns a thousand Pods of one template into a thousand
 * copies of the same names and values. The memory is bounded.
 */
export class Shared {
  readonly #texts = new Map<string, string>();
  readonly #values = new Map<string, unknown>();

  /** Returns an equal text. */
  text<T extends string | undefined>(text: T): T {
    return text === undefined || text.length > LONGEST ? text : (one(this.#texts, text, text) as T);
  }

  /** Returns a value with the same JSON. The value is shared: never change it. */
  value<T>(value: T): T {
    const json = JSON.stringify(value);
    return json === undefined || json.length > LONGEST ? value : (one(this.#values, json, value) as T);
  }
}

function one<T>(known: Map<string, T>, key: string, value: T): T {
  const found = known.get(key);
  if (found !== undefined) return found;
  if (known.size >= MOST) known.clear();
  known.set(key, value);
  return value;
}
