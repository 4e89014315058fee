import type { LookupAddress, LookupOptions } from "node:dns";
import type { LookupFunction } from "node:net";
import { buildConnector } from "undici";
import type { Clock } from "../core/clock.ts";
import { isInnerAddress, isInnerHost } from "./inner-addresses.ts";
import { type Turn, Turns } from "./turns.ts";

/** A connection to an inner address that is not allowed. Nothing was connected or sent. */
export class InnerAddressError extends Error {
  constructor(host: string, addresses: readonly string[] = []) {
    const at = addresses.length === 0 ? "" : `, which resolves to ${addresses.join(", ")},`;
    super(`${host}${at} is an internal address`);
    this.name = "InnerAddressError";
  }
}

/** The number of addresses that the error lists. The owner of a name can return any number. */
const MAX_NAMED = 3;

/**
 * Connects to public addresses only, except for origins that `mayBeInner` allows. A name is resolved here once per
 * connection, and the connection uses one of the checked addresses, so a changed DNS answer has no effect.
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
    buildConnector({ ...common, lookup: filteringLookup(options.resolve, isRefused) } as buildConnector.BuildOptions);
  const free = connectorOf(() => false);
  const guarded = connectorOf(options.isInner ?? isInnerAddress);
  return (target, callback) => {
    const origin = URL.parse(`${target.protocol}//${target.host ?? target.hostname}`)?.origin;
    if (origin !== undefined && options.mayBeInner(origin)) return free(target, callback);
    // A hostname that is an IP address is never resolved.
    if (isInnerHost(target.hostname)) return callback(new InnerAddressError(target.hostname), null);
    guarded(target, callback);
  };
}

/** Returns the addresses of a name that are not refused; an error if there are none. */
function filteringLookup(resolve: Resolve, isRefused: (address: string) => boolean): LookupFunction {
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

/** Resolves all addresses of a name, as `dns.lookup` does with `all: true`. */
export type Resolve = (
  hostname: string,
  options: LookupOptions & { all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/**
 * A lookup with a cached or prompt answer takes milliseconds; one whose name server does not answer takes 5 s or more.
 */
const SLOW_MS = 1_000;

/**
 * Concurrent lookups of doubtful names, and of names that were answered before. The image has 64 threads (Dockerfile),
 * and libuv gives half of them to lookups. Listed names have the rest.
 */
export const MAX_DOUBTFUL = 8;
export const MAX_KNOWN = 16;
/** One tenant's largest share of these, so that other tenants find a free slot at once. */
export const TENANT_SHARE = 1 / 2;

/** The number of names remembered as answered. Beyond it, the least recently resolved names become doubtful again. */
const MAX_ANSWERED = 10_000;
/** The number of one tenant's names that can wait; any more fail at once. */
export const MAX_WAITING = 1_000;

type Callback = Parameters<Resolve>[2];

interface Lookup {
  readonly hostname: string;
  readonly options: LookupOptions & { all: true };
  readonly callbacks: Callback[];
  /** The lane that it waits in; undefined once it has begun. */
  lane: Lane | undefined;
  /** The tenants in whose turns it waits. */
  readonly tenants: Set<string>;
}

/**
 * Lookups of names that any tenant may have configured. Each holds a thread of the process until the name server
 * answers, and every connection to any Work API needs one. A tenant whose names are never answered must not hold them
 * all.
 *
 * Listed names never wait. Any other name waits for its turn, tenant by tenant, and takes part in the turns of each
 * tenant with a request to it. A name is doubtful until it was answered in less than SLOW_MS, and becomes doubtful
 * again after a slow answer.
 *
 * Invariants: concurrent requests for a name share one lookup. At most MAX_DOUBTFUL lookups of doubtful names and
 * MAX_KNOWN of others run at a time, and at most TENANT_SHARE of each in the turns of one tenant.
 */
export class Lookups {
  readonly #clock: Clock;
  readonly #resolve: Resolve;
  readonly #isListed: (hostname: string) => boolean;
  /** By name. */
  readonly #lookups = new Map<string, Lookup>();
  /** By name: the number of requests in flight of each tenant. */
  readonly #requests = new Map<string, Map<string, number>>();
  /** Names that were answered in time, the least recently resolved first. */
  readonly #answered = new Set<string>();
  readonly #doubtful = new Lane(MAX_DOUBTFUL);
  readonly #known = new Lane(MAX_KNOWN);

  constructor(clock: Clock, resolve: Resolve, isListed: (hostname: string) => boolean = () => false) {
    this.#clock = clock;
    this.#resolve = resolve;
    this.#isListed = isListed;
  }

  /**
   * Records a request of this tenant that may need the name.
   * @returns a function to call when the request ends.
   */
  request(hostname: string, tenant = ""): () => void {
    const tenants = this.#requests.get(hostname) ?? new Map<string, number>();
    this.#requests.set(hostname, tenants);
    tenants.set(tenant, (tenants.get(tenant) ?? 0) + 1);
    const lookup = this.#lookups.get(hostname);
    if (lookup?.lane?.add(lookup, tenant)) this.#begin(lookup.lane);
    return () => {
      const left = (tenants.get(tenant) ?? 0) - 1;
      if (left > 0) tenants.set(tenant, left);
      else tenants.delete(tenant);
      if (tenants.size === 0) this.#requests.delete(hostname);
    };
  }

  /** All callers pass the same options for a name. */
  readonly resolve: Resolve = (hostname, options, callback) => {
    const known = this.#lookups.get(hostname);
    if (known) return void known.callbacks.push(callback);
    const lane = this.#answered.has(hostname) ? this.#known : this.#doubtful;
    const lookup = { hostname, options, callbacks: [callback], lane, tenants: new Set<string>() };
    if (this.#isListed(hostname)) {
      this.#lookups.set(hostname, lookup);
      this.#lookUp(lookup, () => {});
      return;
    }
    for (const tenant of this.#requests.get(hostname)?.keys() ?? [""]) lane.add(lookup, tenant);
    if (lookup.tenants.size === 0) {
      const error = new Error(`${hostname} was not resolved, because too many names of its namespace wait`);
      callback(Object.assign(error, { code: "EAI_AGAIN" }), []);
      return;
    }
    this.#lookups.set(hostname, lookup);
    this.#begin(lane);
  };

  /** Starts the lookups whose turn has come. */
  #begin(lane: Lane): void {
    for (let next = lane.next(); next; next = lane.next()) {
      const { lookup, tenant } = next;
      this.#lookUp(lookup, () => {
        lane.end(tenant);
        this.#begin(lane);
      });
    }
  }

  #lookUp(lookup: Lookup, onEnd: () => void): void {
    const { hostname, options, callbacks } = lookup;
    lookup.lane = undefined;
    const sinceMs = this.#clock.monotonic();
    this.#resolve(hostname, options, (error, addresses) => {
      this.#recordDuration(hostname, this.#clock.monotonic() - sinceMs);
      this.#lookups.delete(hostname);
      for (const callback of callbacks) callback(error, addresses);
      onEnd();
    });
  }

  /** A fast failure counts as an answer, because it does not hold a thread either. */
  #recordDuration(hostname: string, tookMs: number): void {
    this.#answered.delete(hostname);
    if (tookMs >= SLOW_MS) return;
    this.#answered.add(hostname);
    const [oldest] = this.#answered;
    if (this.#answered.size > MAX_ANSWERED && oldest !== undefined) this.#answered.delete(oldest);
  }
}

interface Waiting extends Turn {
  readonly lookup: Lookup;
}

/** Runs a bounded number of lookups at a time; the others wait for their turns. */
class Lane {
  readonly #most: number;
  readonly #turns = new Turns<Waiting>();
  /** Running lookups, by the tenant in whose turn they began. */
  readonly #used = new Map<string, number>();
  #sum = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Returns false if the lookup already waits in this tenant's turns, or if too many do. */
  add(lookup: Lookup, tenant: string): boolean {
    if (lookup.tenants.has(tenant) || this.#turns.membersOf(tenant) >= MAX_WAITING) return false;
    lookup.tenants.add(tenant);
    this.#turns.add({ tenant, member: lookup.hostname, lookup });
    return true;
  }

  /** Removes and returns the next lookup that can begin now. */
  next(): Waiting | undefined {
    if (this.#sum >= this.#most) return undefined;
    const next = this.#turns.next((tenant) => (this.#used.get(tenant) ?? 0) < this.#most * TENANT_SHARE);
    if (!next) return undefined;
    const { tenant, member, lookup } = next;
    for (const other of lookup.tenants) this.#turns.takeAll({ tenant: other, member });
    this.#used.set(tenant, (this.#used.get(tenant) ?? 0) + 1);
    this.#sum += 1;
    return next;
  }

  end(tenant: string): void {
    const left = (this.#used.get(tenant) ?? 0) - 1;
    if (left > 0) this.#used.set(tenant, left);
    else this.#used.delete(tenant);
    this.#sum -= 1;
  }
}
