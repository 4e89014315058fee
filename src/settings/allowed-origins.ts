import { DEFAULT_BASE_URL } from "../api/network-spec.ts";
import { isInnerHost } from "../work/inner-addresses.ts";

/** The Work API origins that spec.api.baseUrl may name: any https origin with a public address, or exactly these. */
export type AllowedOrigins = "any-https" | readonly string[];

/** Whether an Environment may use the Work API at `baseUrl`. A key must not be sent to a host that is not allowed. */
export function originAllowed(allowed: AllowedOrigins, baseUrl: string): boolean {
  const url = URL.parse(baseUrl);
  if (url === null) return false;
  return allowed === "any-https"
    ? url.protocol === "https:" && !isInnerHost(url.hostname)
    : allowed.includes(url.origin);
}

/**
 * Whether the Work API at `origin` may have an inner address, because the administrator listed it. Otherwise, anyone
 * who can write Environments could make the operator probe its own network, and so could the owner of a name, by what
 * the name resolves to.
 */
export function mayBeInner(allowed: AllowedOrigins, origin: string): boolean {
  return allowed !== "any-https" && allowed.includes(origin);
}

/** Whether this is the host of a listed origin, or of the default origin. */
export function isListedHost(allowed: AllowedOrigins, hostname: string): boolean {
  const listed = allowed === "any-https" ? [] : allowed;
  return [DEFAULT_BASE_URL, ...listed].some((origin) => URL.parse(origin)?.hostname === hostname);
}
