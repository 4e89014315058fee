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
