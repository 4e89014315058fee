import type { Writable } from "node:stream";

/** Without a terminal, one line per interval shows that work continues, and the log stays short. */
const PLAIN_INTERVAL_MS = 15_000;
/** Slow enough to read, and fast enough to look active. */
const LIVE_INTERVAL_MS = 120;

export interface Progress {
  /** Replaces the current status text. This is cheap, so call it as often as you like. */
  update(text: string): void;
  /** Writes a permanent line. */
  line(text: string): void;
  /** Removes the status text. */
  clear(): void;
}

/** Shows progress on a stream: one live line on a terminal, or a plain line every 15 s elsewhere. */
export function showProgress(
  stream: Writable & { isTTY?: boolean; columns?: number } = process.stderr,
  now: () => number = () => performance.now(),
): Progress {
  return stream.isTTY ? new LiveLine(stream, now) : new PlainLines(stream, now);
}

/** Shows nothing. */
export const silentProgress: Progress = { update() {}, line() {}, clear() {} };

class LiveLine implements Progress {
  readonly #stream: Writable & { columns?: number };
  readonly #now: () => number;
  #drawnAt = Number.NEGATIVE_INFINITY;

  constructor(stream: Writable & { columns?: number }, now: () => number) {
    this.#stream = stream;
    this.#now = now;
  }

  update(text: string): void {
    if (this.#now() - this.#drawnAt < LIVE_INTERVAL_MS) return;
    this.#drawnAt = this.#now();
    // A carriage return can't overwrite a line that wraps. Some terminals report zero columns.
    this.#stream.write(`\r\x1b[2K${text.slice(0, (this.#stream.columns || 80) - 1)}`);
  }

  line(text: string): void {
    this.clear();
    this.#stream.write(`${text}\n`);
  }

  clear(): void {
    if (this.#drawnAt !== Number.NEGATIVE_INFINITY) this.#stream.write("\r\x1b[2K");
    this.#drawnAt = Number.NEGATIVE_INFINITY;
  }
}

class PlainLines implements Progress {
  readonly #stream: Writable;
  readonly #now: () => number;
  #writtenAt: number;

  constructor(stream: Writable, now: () => number) {
    this.#stream = stream;
    this.#now = now;
    this.#writtenAt = now();
  }

  update(text: string): void {
    if (this.#now() - this.#writtenAt < PLAIN_INTERVAL_MS) return;
    this.line(text);
  }

  line(text: string): void {
    this.#writtenAt = this.#now();
    this.#stream.write(`${text}\n`);
  }

  clear(): void {}
}

/** Formats a duration, for example `4m05s`. */
export function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  return minutes === 0 ? `${seconds}s` : `${minutes}m${String(seconds % 60).padStart(2, "0")}s`;
}
