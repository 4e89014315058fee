/** A text that must not hold a credential, and where it was found. */
export interface Place {
  readonly where: string;
  readonly text: string;
}

/** How a credential stood somewhere. */
export interface Leak {
  readonly where: string;
  /** The beginning of the credential, which is no secret. */
  readonly credential: string;
  /** In which form it stood there. */
  readonly form: string;
}

/**
 * Pieces of this length are looked up, cut off a credential one after the other: any part of it that is twice as long is
 * found, so also one that was cut short. Short enough for that, long enough to stand nowhere by chance.
 */
const PIECE_LENGTH = 12;
/** Enough to tell what kind it is of. */
const SHOWN_LENGTH = 14;
/** What credentials of one kind have in common, and documentation shows. */
const KIND = /^sk-ant-[a-z0-9]+-/;
/** Everything that a form of a credential is made of: what lies between is not looked at. */
const RUNS = new RegExp(`[A-Za-z0-9_+/=%.\\\\-]{${PIECE_LENGTH},}`, "g");

/** Looks for credentials in texts, in every form in which they may get there: see `formsOf`. */
export class LeakSearch {
  readonly #pieces = new Map<string, { readonly credential: string; readonly form: string }>();

  constructor(credentials: Iterable<string>) {
    for (const credential of new Set(credentials)) {
      const secret = credential.replace(KIND, "");
      // Too short to be told from anything else: an empty one would be found everywhere.
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

  /** Each credential once for each place, in the form that was seen first. */
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

/** Where credentials stand in texts, a line for each, without repeating one. */
export function findLeaks(credentials: Iterable<string>, places: Iterable<Place>): string[] {
  return new LeakSearch(credentials).find(places).map(leakText);
}

export function leakText({ where, credential, form }: Leak): string {
  return `${where}: ${credential} (${form})`;
}

/**
 * How programs write a text: as it is, in base64 (also within something longer, which shifts it by one or two bytes: an
 * Authorization header, a Secret's data, a whole object), in base64url, in a URL, as a JSON string, and in hexadecimal
 * digits.
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
      // The characters at both ends depend on what stands beside it.
      yield [encoding, encoded.slice(shift === 0 ? 0 : shift + 1, -1)];
    }
  }
  yield ["hexadecimal", Buffer.from(secret).toString("hex")];
}

const isPlain = (character: string) => /[A-Za-z0-9]/.test(character);
const hexOf = (character: string) => character.charCodeAt(0).toString(16);

/** As encoders do that escape more than they must. */
function escapedForJson(character: string): string {
  return isPlain(character) ? character : `\\u${hexOf(character).padStart(4, "0")}`;
}

function escapedForUrl(character: string): string {
  return isPlain(character) ? character : `%${hexOf(character).padStart(2, "0").toUpperCase()}`;
}

function shown(credential: string): string {
  return `${credential.slice(0, SHOWN_LENGTH)}...`;
}
