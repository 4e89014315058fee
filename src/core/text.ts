/**
 * A text without such characters at its end. In time that grows with the text: a regular expression such as `/[.]+$/` begins
 * anew at each of them, and a text of somebody who knows that would hold up everything for minutes.
 */
export function withoutEnd(text: string, isSuch: (character: string) => boolean): string {
  let end = text.length;
  while (end > 0 && isSuch(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end);
}

/** Somebody else's sentence, to go on after: without a full stop and white space at its end. */
export function unended(words: string): string {
  return withoutEnd(words, (character) => character === "." || character.trim() === "");
}
