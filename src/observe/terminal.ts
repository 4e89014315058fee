import { text } from "node:stream/consumers";
import { styleText } from "node:util";

/** Colours of a text, or none. Each says what it is for, not what it looks like. */
export interface Paint {
  good(text: string): string;
  bad(text: string): string;
  doubtful(text: string): string;
  faint(text: string): string;
  strong(text: string): string;
}

type Style = Parameters<typeof styleText>[0];

const painted = (style: Style) => (text: string) => styleText(style, text, { validateStream: false });
const plain = (text: string) => text;

const COLOURS: Paint = {
  good: painted("green"),
  bad: painted("red"),
  doubtful: painted("yellow"),
  faint: painted("dim"),
  strong: painted("bold"),
};
const NO_COLOURS: Paint = { good: plain, bad: plain, doubtful: plain, faint: plain, strong: plain };

/** Colours only where a person reads them who has not asked for none (https://no-color.org). */
export function paintFor(streams: Pick<CliStreams, "isTerminal">, noColor: string | undefined): Paint {
  return streams.isTerminal === true && !noColor ? COLOURS : NO_COLOURS;
}

/** Whatever moves a terminal's cursor, ends a line, or turns the direction of writing. */
const CONTROLS = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

/** A text of somebody else's on one line: what a session's program wrote must not pass for lines of ours, nor steer a terminal. */
export function oneLine(text: string): string {
  return text.replace(CONTROLS, " ").trim();
}

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

/**
 * The streams of this process. Who reads only the beginning (`| head`, a pager that is left) has had enough: what is
 * written after that is dropped, and the command ends as it would. What else goes wrong with writing is thrown.
 */
export function standardStreams(): CliStreams {
  for (const stream of [process.stdout, process.stderr]) stream.off("error", unlessUnread).on("error", unlessUnread);
  return {
    out: (written) => void process.stdout.write(written),
    err: (written) => void process.stderr.write(written),
    isTerminal: process.stdout.isTTY === true,
    input: () => text(process.stdin),
  };
}

function unlessUnread(error: NodeJS.ErrnoException): void {
  if (error.code !== "EPIPE") throw error;
}

/** Where a command writes, and what it knows of who reads. */
export interface CliStreams {
  out(text: string): void;
  err(text: string): void;
  /** Whether a person reads the output: only then it has colours and progress. False unless set. */
  readonly isTerminal?: boolean;
  /** All of the standard input. */
  input?(): Promise<string>;
}
