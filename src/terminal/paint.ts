import { styleText } from "node:util";
import type { CliStreams } from "./streams.ts";

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
