import { DEFAULT_BASE_URL } from "../api/network-spec.ts";
import { isInnerHost } from "../work/inner-addresses.ts";

/** Which Work APIs an Environment may name in spec.api.baseUrl: any with https and a public address, or exactly these origins. */
export type AllowedOrigins = "any-https" | readonly string[];

/** True when an Environment may use the Work API at `baseUrl`. A key must not be sent to a host nobody allowed. */
export function originAllowed(allowed: AllowedOrigins, baseUrl: string): boolean {
  const url = URL.parse(baseUrl);
  if (url === null) return false;
  return allowed === "any-https"
    ? url.protocol === "https:" && !isInnerHost(url.hostname)
    : allowed.includes(url.origin);
}

/**
 * True when the Work API at `origin` may be at an inner address: somebody wrote it down. Whoever may write Environments
 * could have the operator ask around in its own network otherwise, and a name's owner by what it resolves to.
 */
export function mayBeInner(allowed: AllowedOrigins, origin: string): boolean {
  return allowed !== "any-https" && allowed.includes(origin);
}

/** True for the host of an origin that the administrator listed, and for that of the default origin. */
export function isListedHost(allowed: AllowedOrigins, hostname: string): boolean {
  const listed = allowed === "any-https" ? [] : allowed;
  return [DEFAULT_BASE_URL, ...listed].some((origin) => URL.parse(origin)?.hostname === hostname);
}
