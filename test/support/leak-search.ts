/** Searches texts for credentials in every form in which they may leak. */

/** A text to search for credentials, and where it came from. */
export interface Place {
  readonly where: string;
  readonly text: string;
}

/** A credential that was found, and its form. */
export interface Leak {
  readonly where: string;
  /** The beginning of the credential, which is not secret. */
  readonly credential: string;
  /** The form in which it was found. */
  readonly form: string;
}

/**
 * The search looks for consecutive pieces of this length, so it finds any part of a credential that is twice as long,
 * even a truncated one. Pieces are short enough for that and long enough not to occur by chance.
 */
const PIECE_LENGTH = 12;
/** Enough to identify the kind of credential. */
const SHOWN_LENGTH = 14;
/** The prefix that credentials of one kind share, and that documentation shows. */
const KIND = /^sk-ant-[a-z0-9]+-/;
/** The characters that any form of a credential consists of; the search skips everything between. */
const RUNS = new RegExp(`[A-Za-z0-9_+/=%.\\\\-]{${PIECE_LENGTH},}`, "g");

/** Searches texts for credentials, in every form in which they may appear: see `formsOf`. */
export class LeakSearch {
  readonly #pieces = new Map<string, { readonly credential: string; readonly form: string }>();

  constructor(credentials: Iterable<string>) {
    for (const credential of new Set(credentials)) {
      const secret = credential.replace(KIND, "");
      // Too short to be distinctive: an empty one would be found everywhere.
      if (secret.length < 2 * PIECE_LENGTH)
        throw new RangeError(`no credential: it has ${credential.length} characters`);
      for (const [form, text] of formsOf(secret)) this.#add(credential, form, text);
    }
  }

  #add(credential: string, form: string, text: string): void {
    for (let at = 0; at + PIECE_LENGTH <= text.length; at += PIECE_LENGTH) {
      const piece = text.slice(at, at + PIECE_LENGTH);
      if (!this.#pieces.has(piece)) this.#pieces.set(piece, { credential, form });
    }
  }

  /** Each credential once per place, in the form that was found first. */
  find(places: Iterable<Place>): Leak[] {
    const leaks: Leak[] = [];
    for (const { where, text } of places) {
      const found = new Map<string, string>();
      for (const [run] of text.matchAll(RUNS)) {
        for (let at = 0; at + PIECE_LENGTH <= run.length; at += 1) {
          const hit = this.#pieces.get(run.slice(at, at + PIECE_LENGTH));
          if (hit && !found.has(hit.credential)) found.set(hit.credential, hit.form);
        }
      }
      for (const [credential, form] of found) leaks.push({ where, credential: shown(credential), form });
    }
    return leaks;
  }
}

/** Where credentials occur in texts, one line each, without printing one. */
export function findLeaks(credentials: Iterable<string>, places: Iterable<Place>): string[] {
  return new LeakSearch(credentials).find(places).map(leakText);
}

export function leakText({ where, credential, form }: Leak): string {
  return `${where}: ${credential} (${form})`;
}

/**
 * The forms in which programs write a text: unchanged; in base64 and base64url; in a URL; as a JSON string; in
 * hexadecimal. Base64 may be part of a longer text that shifts it by one or two bytes: an Authorization header, a
 * Secret's data, a whole object.
 */
function* formsOf(secret: string): Generator<readonly [form: string, text: string]> {
  yield ["plain", secret];
  yield ["JSON", JSON.stringify(secret).slice(1, -1)];
  yield ["JSON with escapes", [...secret].map(escapedForJson).join("")];
  yield ["URL-encoded", encodeURIComponent(secret)];
  yield ["URL-encoded throughout", [...secret].map(escapedForUrl).join("")];
  for (const encoding of ["base64", "base64url"] as const) {
    for (const shift of [0, 1, 2]) {
      const encoded = Buffer.from(`${"\0".repeat(shift)}${secret}`)
        .toString(encoding)
        .replace(/=+$/, "");
      // The characters at both ends depend on the neighboring text.
      yield [encoding, encoded.slice(shift === 0 ? 0 : shift + 1, -1)];
    }
  }
  yield ["hexadecimal", Buffer.from(secret).toString("hex")];
}

const isPlain = (character: string) => /[A-Za-z0-9]/.test(character);
const hexOf = (character: string) => character.charCodeAt(0).toString(16);

/** Some encoders escape more than necessary. */
function escapedForJson(character: string): string {
  return isPlain(character) ? character : `\\u${hexOf(character).padStart(4, "0")}`;
}

function escapedForUrl(character: string): string {
  return isPlain(character) ? character : `%${hexOf(character).padStart(2, "0").toUpperCase()}`;
}

function shown(credential: string): string {
  return `${credential.slice(0, SHOWN_LENGTH)}...`;
}
