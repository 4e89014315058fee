/** More different values than this are not repeated often: the memory begins anew. */
const MOST = 4_096;

/** Longer ones are rarely alike, and remembering them would cost what sharing saves. */
const LONGEST = 512;

/**
 * One copy of what many objects repeat: what JSON.parse makes of a thousand Pods of one template are a thousand copies of
 * its names and values. Bounded, whatever comes.
 */
export class Shared {
  readonly #texts = new Map<string, string>();
  readonly #values = new Map<string, unknown>();

  /** The same text. */
  text<T extends string | undefined>(text: T): T {
    return text === undefined || text.length > LONGEST ? text : (one(this.#texts, text, text) as T);
  }

  /** A value with the same JSON. It is shared: never change it. */
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
