import { withoutEnd } from "../core/text.ts";

/** What cannot be one segment of a path. */
export class PathError extends Error {
  constructor(what: string) {
    super(what);
    this.name = "PathError";
  }
}

/**
 * One path segment that means `id` and nothing else, whatever is in it.
 * @throws PathError for what no encoding makes safe: servers and proxies resolve `.` and `..` also when encoded.
 */
export function pathSegment(id: string): string {
  if (id === "" || id === "." || id === "..") throw new PathError(`the id "${id}" cannot stand in a path`);
  return encoded(id, "the id");
}

function encoded(text: string | number, what: string): string {
  try {
    return encodeURIComponent(text);
  } catch {
    throw new PathError(`${what} is no well-formed text`);
  }
}

/** `?a=1&b=2` of what is defined; empty when nothing is. @throws PathError for what no encoding makes a text of. */
export function queryText(query: Readonly<Record<string, string | number | undefined>>): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    value === undefined ? [] : [`${encodeURIComponent(name)}=${encoded(value, `the value of ${name}`)}`],
  );
  return pairs.length === 0 ? "" : `?${pairs.join("&")}`;
}

/** Whether `splitBaseUrl` takes it. */
export function isBaseUrl(text: string): boolean {
  try {
    splitBaseUrl(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Splits a base URL into its origin and the prefix of all paths (without the last slash).
 * @throws TypeError that quotes nothing of it: it may hold a password.
 */
export function splitBaseUrl(baseUrl: string): { origin: string; prefix: string } {
  const url = URL.parse(baseUrl);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new TypeError("the base URL of the Work API must be an absolute https or http URL");
  }
  if (url.username || url.password) throw new TypeError("the base URL of the Work API must not hold credentials");
  if (url.search || url.hash) throw new TypeError("the base URL of the Work API must not have a query or fragment");
  return { origin: url.origin, prefix: withoutEnd(url.pathname, (character) => character === "/") };
}
