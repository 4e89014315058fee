import { styleText } from "node:util";

export type Style = "bold" | "dim" | "green" | "yellow" | "red" | "cyan";

/** Applies a style to a text, or returns it unchanged. */
export type Paint = (style: Style | undefined, text: string) => string;

export const plain: Paint = (_style, text) => text;
export const coloured: Paint = (style, text) =>
  style === undefined || text === "" ? text : styleText(style, text, { validateStream: false });

const SECOND_MS = 1_000;
/** From this many seconds on, fewer decimals are enough. */
const TEN = 10;
const HUNDRED = 100;

/** `0.03s`, `12.3s`, `123s`. */
export function seconds(ms: number): string {
  const value = ms / SECOND_MS;
  // A value that rounds up to the next size is written in its format.
  if (value < TEN - 0.005) return `${value.toFixed(2)}s`;
  if (value < HUNDRED - 0.05) return `${value.toFixed(1)}s`;
  return `${value.toFixed(0)}s`;
}

/** `0:07`, `1:02:03`. */
export function elapsed(ms: number): string {
  const total = Math.max(0, Math.floor(ms / SECOND_MS));
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const two = (value: number) => String(value).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** Cuts a text, whose characters are one column wide each, to this many columns; `~` marks a cut. */
export function cut(text: string, columns: number): string {
  const characters = [...text];
  if (characters.length <= columns) return text;
  return columns <= 0 ? "" : `${characters.slice(0, columns - 1).join("")}~`;
}

export function pad(text: string, columns: number, side: "left" | "right" = "left"): string {
  const blanks = " ".repeat(Math.max(0, columns - [...text].length));
  return side === "left" ? text + blanks : blanks + text;
}

/** `1 session`, `2 sessions`. */
export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${number} ${number === 1 ? noun : plural}`;
}
