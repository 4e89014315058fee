import { isIP } from "node:net";

/**
 * Whether a request names this server as only somebody would who means it: by an IP address or as localhost. A page of
 * somebody else's that has its own name resolve to this address (DNS rebinding) would send that name, and could read what is
 * here in a browser that can reach it.
 */
export function isOwnHost(header: string | undefined): boolean {
  const host = header?.replace(/:\d{1,5}$/, "").toLowerCase();
  if (host === undefined) return false;
  const bare = /^\[(.*)\]$/.exec(host)?.[1];
  return bare === undefined ? host === "localhost" || isIP(host) === 4 : isIP(bare) === 6;
}
