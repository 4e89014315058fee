import { Chunks } from "../core/chunks.ts";
import type { KubeObject } from "./objects.ts";

/** One line of a watch. `BOOKMARK` carries only a resourceVersion, `ERROR` a Status. */
export interface RawWatchEvent {
  readonly type: string;
  readonly object: KubeObject;
}

/** etcd accepts objects of 1.5 MiB, which grow with JSON escapes. A longer line is no event. */
const MAX_LINE_BYTES = 32 * 1024 * 1024;

const NEWLINE = 0x0a;

/**
 * Splits a watch into events. Lines are split as bytes and then decoded, so a character across two chunks stays intact.
 */
export class WatchDecoder {
  readonly #pending = new Chunks();
  readonly #text = new TextDecoder("utf-8", { fatal: true });

  /**
   * Yields the events that this chunk completes; read them all before the next chunk. Throws SyntaxError or TypeError
   * for a line that is no event, after yielding the events before it.
   */
  *push(chunk: Uint8Array): Generator<RawWatchEvent, void, undefined> {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      const line = this.#take(chunk.subarray(start, end));
      start = end + 1;
      if (line.trim() !== "") yield toEvent(JSON.parse(line));
    }
    this.#keep(chunk.subarray(start));
  }

  /** Bytes of an incomplete line. If some are left at the end of a watch, it was cut off. */
  get pendingBytes(): number {
    return this.#pending.bytes;
  }

  #take(last: Uint8Array): string {
    if (this.#pending.bytes === 0) return this.#text.decode(last);
    this.#pending.push(last);
    return this.#text.decode(this.#pending.take());
  }

  #keep(rest: Uint8Array): void {
    if (rest.length === 0) return;
    this.#pending.push(rest);
    if (this.#pending.bytes > MAX_LINE_BYTES)
      throw new TypeError(`a watch event is longer than ${MAX_LINE_BYTES} bytes`);
  }
}

function toEvent(value: unknown): RawWatchEvent {
  if (typeof value === "object" && value !== null) {
    const { type, object } = value as { type?: unknown; object?: unknown };
    if (typeof type === "string" && typeof object === "object" && object !== null) {
      return { type, object: object as KubeObject };
    }
  }
  throw new TypeError("a line of the watch is not a watch event");
}
