import { text } from "node:stream/consumers";
import { styleText } from "node:util";

/** Styles for text, or none. Each name gives the meaning, not the look. */
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

/** Uses colors only for a person at a terminal who has not set NO_COLOR (https://no-color.org). */
export function paintFor(streams: Pick<CliStreams, "isTerminal">, noColor: string | undefined): Paint {
  return streams.isTerminal === true && !noColor ? COLOURS : NO_COLOURS;
}

/** Characters that move a terminal's cursor, end a line, or change the direction of writing. */
const CONTROLS = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

/**
 * Puts text from elsewhere on one line: a session's output must neither imitate Berth's lines nor control a terminal.
 */
export function oneLine(text: string): string {
  return text.replace(CONTROLS, " ").trim();
}

const CLEAR_LINE = "\r\u001b[K";

/** One line of progress on a terminal. It is removed when the work is done. */
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
 * The streams of this process. A reader that stops early (`head`, a pager that was quit) is no error: later output is
 * dropped and the command ends normally. Any other write error is thrown.
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

/** The output of a command, and whether a person reads it. */
export interface CliStreams {
  out(text: string): void;
  err(text: string): void;
  /** Whether a person reads the output. If so, it has colors and progress. False by default. */
  readonly isTerminal?: boolean;
  /** All of standard input. */
  input?(): Promise<string>;
}
