import { Chunks } from "../core/chunks.ts";
import type { KubeObject } from "./objects.ts";

/** One line of a watch. `BOOKMARK` carries only a resourceVersion, `ERROR` a Status. */
export interface RawWatchEvent {
  readonly type: string;
  readonly object: KubeObject;
}

/** etcd takes objects of 1.5 MiB; JSON with escapes makes more of them. Beyond this, it is no line of a watch. */
const MAX_LINE_BYTES = 32 * 1024 * 1024;

const NEWLINE = 0x0a;

/**
 * Cuts the bytes of a watch into events. Lines are cut as bytes and decoded whole, so that a character that is split
 * over two chunks is not torn.
 */
export class WatchDecoder {
  readonly #pending = new Chunks();
  readonly #text = new TextDecoder("utf-8", { fatal: true });

  /**
   * The events that are complete with this chunk; read them all before the next one. Throws SyntaxError or TypeError
   * where a line is no event, after the events before it.
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

  /** Bytes of a line whose end has not come: a watch that ends with some was cut off. */
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
  throw new TypeError("a line of the watch is no watch event");
}
