import { redact } from "../observe/logger.ts";

/** Of what others say, so much is shown. */
const MAX_SHOWN = 300;
/** Shorter than any credential: masking such a value would only shred the text. */
const MIN_MASKED = 8;
const MASK = "[redacted]";

/**
 * Text from a server, fit for an error message: credentials of known form and the given secrets (also as they stand in
 * a URL or in JSON) are masked, control characters and line breaks are gone, the rest is cut.
 */
export function shownText(text: string, secrets: readonly string[], maxLength = MAX_SHOWN): string {
  // Before cutting: half a key at the end of a text would not be found any more.
  let shown = maskValues(text, secrets);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  shown = shown.replaceAll(/[\s\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();
  // Again: what a line break had split may have become whole.
  shown = redact(maskValues(shown, secrets));
  return shown.length <= maxLength ? shown : `${shown.slice(0, maxLength).trimEnd()}...`;
}

function maskValues(text: string, secrets: readonly string[]): string {
  let masked = text;
  for (const secret of secrets) {
    if (secret.length < MIN_MASKED) continue;
    const forms = [secret, encodeURIComponent(secret.toWellFormed()), JSON.stringify(secret).slice(1, -1)];
    for (const form of forms) masked = masked.replaceAll(form, MASK);
  }
  return masked;
}
