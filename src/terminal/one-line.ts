/** Whatever moves a terminal's cursor, ends a line, or turns the direction of writing. */
const CONTROLS = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

/** A text of somebody else's on one line: what a session's program wrote must not pass for lines of ours, nor steer a terminal. */
export function oneLine(text: string): string {
  return text.replace(CONTROLS, " ").trim();
}
