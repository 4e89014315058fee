import type { CliStreams } from "./streams.ts";

const CLEAR_LINE = "\r\u001b[K";

/** One line that says what is under way, where a person looks on; gone when it is done. */
export class Progress implements Disposable {
  readonly #streams: CliStreams;

  constructor(streams: CliStreams) {
    this.#streams = streams;
  }

  say(text: string): void {
    if (this.#streams.isTerminal) this.#streams.err(`${CLEAR_LINE}${text}`);
  }

  [Symbol.dispose](): void {
    if (this.#streams.isTerminal) this.#streams.err(CLEAR_LINE);
  }
}
