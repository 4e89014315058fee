import { SECOND_MS } from "./clock.ts";

/**
 * Removes all matching characters from the end of a text, in linear time. A regular expression such as `/[.]+$/`
 * restarts at each match: an attacker's text could block the process for minutes.
 */
export function withoutEnd(text: string, isSuch: (character: string) => boolean): string {
  let end = text.length;
  while (end > 0 && isSuch(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end);
}

/** Removes the full stop and white space from the end of a sentence from elsewhere, so that it can be continued. */
export function unended(words: string): string {
  return withoutEnd(words, (character) => character === "." || character.trim() === "");
}

/** The Pod's annotation about its end has 512 characters, and the end of the last lines matters most. */
const MAX_LAST_LINES = 400;

/** What a program said last, after a colon. The kubelet passes on its termination log, or up to 2 KiB of its output. */
export function lastLines(message: string | undefined): string {
  const said = message?.trim() ?? "";
  if (said === "") return "";
  if (said.length <= MAX_LAST_LINES) return `: ${said}`;
  const end = said.slice(-MAX_LAST_LINES);
  return `: ...${end.slice(end.indexOf("\n") + 1)}`;
}

/** Whether `one` is a later instant than `other`. If either text is unreadable: whether the texts differ. */
export function isLater(one: string, other: string): boolean {
  const [a, b] = [instantOf(one), instantOf(other)];
  return a && b ? a.fromMs >= b.beforeMs : one !== other;
}

/** Whether two texts can mean the same instant. An unreadable text equals only itself. */
export function isSameInstant(one: string, other: string | null): boolean {
  if (one === other || other === null) return one === other;
  const [a, b] = [instantOf(one), instantOf(other)];
  return a !== null && b !== null && a.fromMs < b.beforeMs && b.fromMs < a.beforeMs;
}

const FRACTION = /\.(\d+)/;

/** The time span that an RFC 3339 text can mean: it may be truncated to whole seconds, or to any fraction. */
export function instantOf(text: string): { readonly fromMs: number; readonly beforeMs: number } | null {
  const fromMs = Date.parse(text);
  if (Number.isNaN(fromMs)) return null;
  const digits = FRACTION.exec(text)?.[1]?.length ?? 0;
  return { fromMs, beforeMs: fromMs + Math.max(1, SECOND_MS / 10 ** digits) };
}
