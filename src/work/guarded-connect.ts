import type { LookupFunction } from "node:net";
import { buildConnector } from "undici";
import { isInnerAddress, isInnerHost } from "./inner-addresses.ts";
import type { Resolve } from "./lookups.ts";

/** A connection to an inner address that nobody allowed: nothing was sent, nothing connected. */
export class InnerAddressError extends Error {
  constructor(host: string, addresses: readonly string[] = []) {
    const at = addresses.length === 0 ? "" : `, which resolves to ${addresses.join(", ")},`;
    super(`${host}${at} is an inner address`);
    this.name = "InnerAddressError";
  }
}

/** So many addresses are named in the error; whoever owns a name may answer with any number. */
const MAX_NAMED = 3;

/**
 * Makes connections to public addresses alone, but for the origins of which `mayBeInner` says so. A name is resolved here,
 * once for every connection, and the connection goes to one of the addresses that were looked at: answers that change in
 * between change nothing.
 */
export function guardedConnector(options: {
  readonly timeoutMs: number;
  readonly mayBeInner: (origin: string) => boolean;
  readonly resolve: Resolve;
  /** For tests, which have no public address to connect to. */
  readonly isInner?: (address: string) => boolean;
}): buildConnector.connector {
  const common = { timeout: options.timeoutMs, allowH2: false };
  const connectorOf = (isRefused: (address: string) => boolean) =>
    buildConnector({ ...common, lookup: lookupBut(options.resolve, isRefused) } as buildConnector.BuildOptions);
  const free = connectorOf(() => false);
  const guarded = connectorOf(options.isInner ?? isInnerAddress);
  return (target, callback) => {
    const origin = URL.parse(`${target.protocol}//${target.host ?? target.hostname}`)?.origin;
    if (origin !== undefined && options.mayBeInner(origin)) return free(target, callback);
    // A name that is an address is never looked up.
    if (isInnerHost(target.hostname)) return callback(new InnerAddressError(target.hostname), null);
    guarded(target, callback);
  };
}

/** Of the addresses of a name, those that are not refused; an error when there is none. */
function lookupBut(resolve: Resolve, isRefused: (address: string) => boolean): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found) => {
      if (error) return callback(error, options.all ? [] : "", 0);
      const addresses = found.filter(({ address }) => !isRefused(address));
      const [first] = addresses;
      if (first) return options.all ? callback(null, addresses) : callback(null, first.address, first.family);
      const named = found.slice(0, MAX_NAMED).map(({ address }) => address);
      callback(new InnerAddressError(hostname, named), options.all ? [] : "", 0);
    });
  };
}
