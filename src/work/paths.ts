import { withoutEnd } from "../core/text.ts";

/** A text that can't be a path segment. */
export class PathError extends Error {
  constructor(what: string) {
    super(what);
    this.name = "PathError";
  }
}

/**
 * Encodes `id` as one path segment that means exactly this id.
 * @throws PathError for an id that no encoding makes safe: servers and proxies resolve `.` and `..` even when encoded.
 */
export function pathSegment(id: string): string {
  if (id === "" || id === "." || id === "..") throw new PathError(`the id "${id}" cannot be part of a path`);
  return encoded(id, "the id");
}

function encoded(text: string | number, what: string): string {
  try {
    return encodeURIComponent(text);
  } catch {
    throw new PathError(`${what} is not well-formed text`);
  }
}

/**
 * Returns `?a=1&b=2` with the defined values; empty if there are none.
 * @throws PathError for a value that can't be encoded.
 */
export function queryText(query: Readonly<Record<string, string | number | undefined>>): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    value === undefined ? [] : [`${encodeURIComponent(name)}=${encoded(value, `the value of ${name}`)}`],
  );
  return pairs.length === 0 ? "" : `?${pairs.join("&")}`;
}

/**
 * Splits a base URL into its origin and the prefix of all paths (without a trailing slash).
 * @throws TypeError whose message does not quote the URL, because it may contain a password.
 */
export function splitBaseUrl(baseUrl: string): { origin: string; prefix: string } {
  const url = URL.parse(baseUrl);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new TypeError("the base URL of the Work API must be an absolute https or http URL");
  }
  if (url.username || url.password) throw new TypeError("the base URL of the Work API must not contain credentials");
  if (url.search || url.hash) throw new TypeError("the base URL of the Work API must not have a query or fragment");
  return { origin: url.origin, prefix: withoutEnd(url.pathname, (character) => character === "/") };
}
