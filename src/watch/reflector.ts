import { Backoff, type BackoffPolicy, jitter, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { isGone, isMalformed, isServerFault, isTooManyRequests, KubeApiError } from "../kube/errors.ts";
import type { KubeObject } from "../kube/objects.ts";
import type { Resource } from "../kube/resource.ts";
import type { WatchEvent } from "../kube/watch.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import { compareVersions, keyOf, type VersionedKeys } from "./cache.ts";

/**
 * Between restarts after failures: about five requests in the first three seconds of an outage, then eight a minute from
 * each reflector. A restart of the API server takes about a second, so the first tries are near each other; and there
 * are two reflectors a process, not one a node, so the longest pause can be shorter than client-go's 30 s: it is the time
 * that we stay blind after an outage.
 * After a 410 the list follows within a quarter of a second, sooner than client-go's (0.8 s and more).
 */
const RESTART_BACKOFF: BackoffPolicy = { baseMs: 250, maxMs: 10_000 };

/** A watch that lived so long was a good one: the next failure starts from the base of the backoffs again. */
const STABLE_MS = 10_000;

/**
 * One that brought something and ended sooner was no good one: a server, or a proxy before it, that says something and
 * closes at once would be asked in a hot loop.
 */
const PRODUCTIVE_MS = 1_000;

/** The server is asked to end a watch after 5 to 10 minutes, as client-go does: spreads watches over API servers. */
const WATCH_SECONDS = { min: 300, spread: 300 } as const;

/** How often what the watch has shown is compared with a list. One list in ten minutes is little, even of large sets. */
const COMPARE_INTERVAL_MS = 600_000;
const COMPARE_JITTER = 0.2;

/** Bookmarks come every minute: a watch that has not come up to a list after two of them has missed what it differs in. */
const COMPARE_PATIENCE_MS = 120_000;

/** A watch that has been open for so long was answered: its opening is given up after 30 s (OPEN_TIMEOUT_MS of watch.ts). */
const ANSWERED_MS = 40_000;

/** A large set may take a while; the pages have their own bounds. */
const LIST_TIMEOUT_MS = 60_000;

/** Why a watch ended; label of a metric. */
export type RestartCause = "closed" | "gone" | "broken" | "throttled" | "server_error" | "refused" | "malformed";

/** Where a reflector puts what it sees. None of these may throw: an informer guards its handlers itself. */
export interface ReflectorStore<T extends KubeObject> {
  /** What of a listed object is kept; without it, all. */
  readonly keep?: (object: T) => T;
  /** These are all the objects there are, as `keep` gave them. */
  replace(items: readonly T[]): void;
  apply(event: WatchEvent<T>): void;
  /** Every object held, as the server names its version. */
  versions(): VersionedKeys;
}

export interface ReflectorOptions<T extends KubeObject> {
  readonly client: KubeClient;
  readonly resource: Resource<T>;
  /** All namespaces where unset. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  readonly store: ReflectorStore<T>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  readonly random?: Random | undefined;
}

/**
 * Keeps a store equal to what the API server has: lists by pages, watches with bookmarks, lists again when its place in
 * the history is gone. It runs until its signal aborts and never ends by itself, whatever the server does.
 *
 * Guaranteed: every state the store goes through is one the server had; after any outage it converges. Not guaranteed:
 * that every intermediate state of an object is seen, or how far behind the store is.
 */
export class Reflector<T extends KubeObject> {
  readonly #options: ReflectorOptions<T>;
  readonly #random: Random;
  /** Between tries while the server is away or busy. Any other answer ends the outage. */
  readonly #outageBackoff: Backoff;
  /** Between tries after other answers than a watch: only a watch that lived ends these, since each may cost a list. */
  readonly #refusalBackoff: Backoff;
  readonly #synced = Promise.withResolvers<void>();
  #hasSynced = false;
  #lastError: unknown;
  /** Since when (monotonic) nothing shows that the store follows the server; undefined: it does. */
  #behindSinceMs: number | undefined;
  /** The last watch failed: a list in between shows changes only once. */
  #watchFailed = false;
  /** When (monotonic) the watch under way was sent; undefined: there is none. */
  #watchSentMs: number | undefined;
  /** Everything up to here is in the store. */
  #version = "";
  /** The place in the history is of no use (any more): list before watching. */
  #mustList = true;
  #stopWatch: AbortController | undefined;
  /** Who waits for a list that was sent after they asked. */
  #askers: (() => void)[] = [];
  #comparison: Comparison | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
    this.#outageBackoff = new Backoff(RESTART_BACKOFF, this.#random);
    this.#refusalBackoff = new Backoff(RESTART_BACKOFF, this.#random);
  }

  /** Resolves when the first list is in the store; never rejects. */
  get synced(): Promise<void> {
    return this.#synced.promise;
  }

  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** What the last attempt failed with; undefined while all is well. */
  get lastError(): unknown {
    return this.#lastError;
  }

  /** For how long the store may be behind the server: since the first list or watch that failed in a row. */
  get behindMs(): number {
    const nowMs = this.#options.clock.monotonic();
    const isWatching = this.#watchSentMs !== undefined && nowMs >= this.#watchSentMs + ANSWERED_MS;
    return this.#behindSinceMs === undefined || isWatching ? 0 : nowMs - this.#behindSinceMs;
  }

  /**
   * Lists anew. Resolves when a list that was sent after this call is in the store: it shows every write that anybody had
   * an answer to by now, which a watch that lags behind need not. Never rejects; without a server it never resolves.
   */
  relist(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#askers.push(resolve);
    this.#mustList = true;
    this.#stopWatch?.abort();
    return promise;
  }

  async run(signal: AbortSignal): Promise<void> {
    const comparing = this.#compareNowAndThen(signal);
    while (!signal.aborted) {
      const delayMs = await this.#round(signal);
      if (delayMs > 0) await sleep(this.#options.clock, delayMs, signal);
    }
    await comparing;
  }

  /** One list, if it is due, and one watch. Returns how long to wait before the next round. */
  async #round(signal: AbortSignal): Promise<number> {
    try {
      if (this.#mustList) await this.#list(signal);
    } catch (error) {
      return signal.aborted ? 0 : this.#failed("list", error);
    }
    // Somebody asked while the list was under way.
    if (this.#mustList) return 0;
    const opened = this.#options.clock.monotonic();
    const progress = { events: 0 };
    let failure: unknown;
    this.#watchSentMs = opened;
    try {
      await this.#watch(signal, progress);
    } catch (error) {
      failure = error;
    } finally {
      this.#watchSentMs = undefined;
    }
    if (signal.aborted) return 0;
    if (this.#askers.length > 0) return 0;
    const livedMs = this.#options.clock.monotonic() - opened;
    if (livedMs >= ANSWERED_MS) this.#follows();
    const productive = progress.events > 0 && livedMs >= PRODUCTIVE_MS;
    if (productive || livedMs >= STABLE_MS) this.#outageBackoff.reset();
    if (livedMs >= STABLE_MS) this.#refusalBackoff.reset();
    return this.#restartDelay(failure, productive);
  }

  #restartDelay(failure: unknown, productive: boolean): number {
    const { metrics, resource } = this.#options;
    const cause = causeOf(failure);
    metrics?.reflectorRestarts.inc({ resource: resource.plural, cause });
    if (cause === "closed") {
      // The usual end. One that said nothing may be a server that closes everything at once: not in a hot loop.
      return productive ? 0 : this.#outageBackoff.next();
    }
    if (mustRelist(failure)) this.#mustList = true;
    this.#watchFailed = true;
    return this.#failed("watch", failure);
  }

  #failed(what: string, error: unknown): number {
    const { clock, logger, resource, namespace } = this.#options;
    this.#lastError = error;
    this.#behindSinceMs ??= clock.monotonic();
    const asked = error instanceof KubeApiError ? (error.retryAfterMs ?? 0) : 0;
    const outage = isOutage(error);
    if (!outage) this.#outageBackoff.reset();
    const delayMs = Math.max(asked, (outage ? this.#outageBackoff : this.#refusalBackoff).next());
    const level = isGone(error) ? "info" : "warn";
    logger[level](
      { resource: resource.plural, namespace, error: errorText(error), retryInMs: Math.round(delayMs) },
      `${what} of a reflector failed`,
    );
    return delayMs;
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { clock, metrics, resource, store } = this.#options;
    const asked = this.#askers.length;
    this.#behindSinceMs ??= clock.monotonic();
    const list = await this.#fetch(signal, store.keep);
    metrics?.reflectorLists.inc({ resource: resource.plural });
    // From 0, so that the first miss is an increase and not the birth of a series, which `increase()` does not see.
    metrics?.reflectorMisses.inc({ resource: resource.plural }, 0);
    store.replace(list.items);
    this.#version = list.version;
    const answered = this.#askers.splice(0, asked);
    this.#mustList = this.#askers.length > 0;
    // A list is newer than whatever a comparison under way holds.
    this.#comparison?.cancel();
    this.#outageBackoff.reset();
    this.#lastError = undefined;
    if (!this.#watchFailed) this.#behindSinceMs = clock.monotonic();
    this.#hasSynced = true;
    this.#synced.resolve();
    for (const resolve of answered) resolve();
  }

  async #fetch(signal: AbortSignal, keep?: (item: T) => T): Promise<{ items: T[]; version: string }> {
    const { client, resource, namespace, labelSelector, fieldSelector } = this.#options;
    // Without a resourceVersion: never older than anything that was ever acknowledged to anybody.
    const query = { namespace, labelSelector, fieldSelector };
    const list = await client.listAll(resource, query, { signal, timeoutMs: LIST_TIMEOUT_MS, ...(keep && { keep }) });
    const version = list.metadata.resourceVersion;
    if (!version) throw new TypeError(`a list of ${resource.plural} without a resourceVersion`);
    return { items: list.items, version };
  }

  async #watch(signal: AbortSignal, progress: { events: number }): Promise<void> {
    const { client, resource, namespace, labelSelector, fieldSelector, store } = this.#options;
    const timeoutSeconds = Math.round(WATCH_SECONDS.min + WATCH_SECONDS.spread * this.#random());
    const query = { namespace, labelSelector, fieldSelector, resourceVersion: this.#version, timeoutSeconds };
    const stop = new AbortController();
    this.#stopWatch = stop;
    for await (const event of client.watch(resource, query, { signal: AbortSignal.any([signal, stop.signal]) })) {
      if (event.type !== "BOOKMARK") {
        this.#comparison?.touch(keyOf(event.object));
        store.apply(event);
      }
      progress.events += 1;
      this.#version = event.object.metadata.resourceVersion ?? this.#version;
      this.#comparison?.advanced(this.#version);
      this.#lastError = undefined;
      this.#follows();
    }
  }

  #follows(): void {
    this.#watchFailed = false;
    this.#behindSinceMs = undefined;
  }

  async #compareNowAndThen(signal: AbortSignal): Promise<void> {
    const { clock, logger, resource } = this.#options;
    while (await sleep(clock, jitter(COMPARE_INTERVAL_MS, COMPARE_JITTER, this.#random), signal)) {
      if (this.#mustList) continue;
      try {
        await this.#compare(signal);
      } catch (error) {
        if (!signal.aborted) logger.info({ resource: resource.plural, error: errorText(error) }, "no comparing list");
      } finally {
        this.#comparison = undefined;
      }
    }
  }

  /**
   * Lists, waits until the watch has come as far as the list, and counts the objects that differ though the watch said
   * nothing about them meanwhile. Any miss makes the reflector list anew.
   */
  async #compare(signal: AbortSignal): Promise<void> {
    const { clock, logger, metrics, resource, store } = this.#options;
    const comparison = new Comparison();
    this.#comparison = comparison;
    const list = await this.#fetch(signal, versionOnly);
    metrics?.reflectorLists.inc({ resource: resource.plural });
    comparison.reach(list.version, this.#version);
    const timer = clock.setTimer(() => comparison.giveUp(), COMPARE_PATIENCE_MS);
    const onAbort = () => comparison.cancel();
    signal.addEventListener("abort", onAbort, { once: true });
    const valid = await comparison.reached;
    timer.cancel();
    signal.removeEventListener("abort", onAbort);
    if (!valid) return;
    const misses = comparison.misses(list.items, store.versions());
    if (misses.length === 0) return;
    metrics?.reflectorMisses.inc({ resource: resource.plural }, misses.length);
    logger.warn({ resource: resource.plural, misses: misses.length, first: misses[0] }, "the watch missed changes");
    this.#mustList = true;
    this.#stopWatch?.abort();
  }
}

/** One comparing list: what the watch said while it was under way, and how far the watch has come. */
class Comparison {
  readonly #touched = new Set<string>();
  readonly #done = Promise.withResolvers<boolean>();
  #target: string | undefined;

  /** True: compare now. False: a newer list made this one worthless. */
  get reached(): Promise<boolean> {
    return this.#done.promise;
  }

  touch(key: string): void {
    this.#touched.add(key);
  }

  reach(target: string, current: string): void {
    this.#target = target;
    this.advanced(current);
  }

  advanced(version: string): void {
    if (this.#target !== undefined && compareVersions(version, this.#target) >= 0) this.#done.resolve(true);
  }

  giveUp(): void {
    this.#done.resolve(true);
  }

  cancel(): void {
    this.#done.resolve(false);
  }

  misses(items: readonly KubeObject[], held: VersionedKeys): string[] {
    const listed = new Map(items.map((item) => [keyOf(item), item.metadata.resourceVersion]));
    const missed: string[] = [];
    for (const [key, version] of held) {
      if (!this.#touched.has(key) && listed.get(key) !== version) missed.push(key);
      listed.delete(key);
    }
    for (const key of listed.keys()) if (!this.#touched.has(key)) missed.push(key);
    return missed;
  }
}

/** All that a comparison reads. */
function versionOnly<T extends KubeObject>({ metadata: { namespace, name, resourceVersion } }: T): T {
  return { metadata: { namespace, name, resourceVersion } } as T;
}

function causeOf(failure: unknown): RestartCause {
  if (failure === undefined) return "closed";
  if (!(failure instanceof KubeApiError) || isMalformed(failure)) return "malformed";
  if (isGone(failure)) return "gone";
  if (failure.status === 0) return "broken";
  if (failure.status === 429) return "throttled";
  return failure.status >= 500 ? "server_error" : "refused";
}

/** The server was not reached, failed or asked for time. After a 410 it is healthy, and the list can follow at once. */
function isOutage(failure: unknown): boolean {
  return !mustRelist(failure) && (isServerFault(failure) || isTooManyRequests(failure));
}

/**
 * Whether the place in the history is of no use any more. Besides 410: the server does not know it yet (it was
 * restored from a backup), or refuses it; or what follows it can not be read, and would not be the next time either.
 */
function mustRelist(failure: unknown): boolean {
  if (!(failure instanceof KubeApiError) || isMalformed(failure)) return true;
  if (isGone(failure) || failure.status === 400) return true;
  return failure.details?.causes?.some((cause) => cause.reason === "ResourceVersionTooLarge") === true;
}
