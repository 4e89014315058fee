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
 * Backoff between restarts after failures: about five requests in the first three seconds of an outage, then eight a
 * minute per reflector. The first retries are close together, because an API server restarts in about a second. The
 * longest pause is shorter than client-go's 30 s, because there are two reflectors per process, not one per node. This
 * pause bounds how long the operator sees no changes after an outage. After a 410 the list follows within 250 ms,
 * sooner than client-go's 0.8 s.
 */
const RESTART_BACKOFF: BackoffPolicy = { baseMs: 250, maxMs: 10_000 };

/** A watch that lived this long was healthy: both backoffs start again from their base. */
const STABLE_MS = 10_000;

/**
 * A watch that delivered events but ended sooner does not reset the backoff. Otherwise a server or proxy that sends one
 * event and closes would cause a hot loop.
 */
const PRODUCTIVE_MS = 1_000;

/** Watches time out after 5 to 10 minutes, as in client-go. This spreads them over the API servers. */
const WATCH_SECONDS = { min: 300, spread: 300 } as const;

/** How often the reflector compares its store with a list. One list in ten minutes is cheap, even for large sets. */
const COMPARE_INTERVAL_MS = 600_000;
const COMPARE_JITTER = 0.2;

/**
 * Bookmarks arrive every minute. If the watch has not reached the list's version after two of them, it has missed the
 * differences.
 */
const COMPARE_PATIENCE_MS = 120_000;

/** A watch that is open this long was answered: opening times out after 30 s (OPEN_TIMEOUT_MS in watch.ts). */
const ANSWERED_MS = 40_000;

/** Listing a large set takes several pages; each page also has its own timeout. */
const LIST_TIMEOUT_MS = 60_000;

/** Why a watch ended. This is a metric label. */
export type RestartCause = "closed" | "gone" | "broken" | "throttled" | "server_error" | "refused" | "malformed";

/** Where a reflector stores objects. The methods must not throw; an informer catches the errors of its handlers. */
export interface ReflectorStore<T extends KubeObject> {
  /** Reduces a listed object to what the store keeps. Without it, the store keeps everything. */
  readonly keep?: (object: T) => T;
  /** Replaces the whole content. The items have passed through `keep`. */
  replace(items: readonly T[]): void;
  apply(event: WatchEvent<T>): void;
  /** Every stored object's key with its resourceVersion. */
  versions(): VersionedKeys;
}

export interface ReflectorOptions<T extends KubeObject> {
  readonly client: KubeClient;
  readonly resource: Resource<T>;
  /** All namespaces if unset. */
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
 * Keeps a store equal to the API server: lists in pages, watches with bookmarks, and lists again when its
 * resourceVersion has expired. Runs until its signal aborts, whatever the server does.
 *
 * Guaranteed: each state of the store is a state that the server had, and the store converges after any outage. Not
 * guaranteed: that the store passes through every intermediate state of an object, or how far it lags behind.
 */
export class Reflector<T extends KubeObject> {
  readonly #options: ReflectorOptions<T>;
  readonly #random: Random;
  /** For retries while the server is unreachable or overloaded. Any other answer resets it. */
  readonly #outageBackoff: Backoff;
  /** For retries after any other failure. Only a long-lived watch resets it, because each retry may cost a list. */
  readonly #refusalBackoff: Backoff;
  readonly #synced = Promise.withResolvers<void>();
  #hasSynced = false;
  #lastError: unknown;
  /** When (monotonic) the store may have started to lag behind the server; undefined while it is up to date. */
  #behindSinceMs: number | undefined;
  /** The last watch failed. Until a watch works again, a list proves only that the store was current once. */
  #watchFailed = false;
  /** When (monotonic) the current watch was sent; undefined without a watch. */
  #watchSentMs: number | undefined;
  /** The store holds every change up to this resourceVersion. */
  #version = "";
  /** A watch can't continue from `#version`: list first. */
  #mustList = true;
  #stopWatch: AbortController | undefined;
  /** Resolvers of `relist` calls that no list has answered yet. */
  #relistWaiters: (() => void)[] = [];
  #comparison: Comparison | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
    this.#outageBackoff = new Backoff(RESTART_BACKOFF, this.#random);
    this.#refusalBackoff = new Backoff(RESTART_BACKOFF, this.#random);
  }

  /** Resolves when the store holds the first list. Never rejects. */
  get synced(): Promise<void> {
    return this.#synced.promise;
  }

  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** The error of the last attempt; undefined after a success. */
  get lastError(): unknown {
    return this.#lastError;
  }

  /** How long the store may have been behind the server, counted from the first failure in a row. */
  get behindMs(): number {
    const nowMs = this.#options.clock.monotonic();
    const isWatching = this.#watchSentMs !== undefined && nowMs >= this.#watchSentMs + ANSWERED_MS;
    return this.#behindSinceMs === undefined || isWatching ? 0 : nowMs - this.#behindSinceMs;
  }

  /**
   * Lists again. Resolves when the store holds a list that was sent after this call. Such a list includes every write
   * that was acknowledged before the call; a lagging watch may not. Never rejects. Stays pending while the server is
   * unreachable.
   */
  relist(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#relistWaiters.push(resolve);
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

  /** Runs one list, if needed, and one watch. Returns the delay before the next round. */
  async #round(signal: AbortSignal): Promise<number> {
    try {
      if (this.#mustList) await this.#list(signal);
    } catch (error) {
      return signal.aborted ? 0 : this.#failed("list", error);
    }
    // `relist` was called while the list was in flight.
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
    if (this.#relistWaiters.length > 0) return 0;
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
      // A normal end. A watch without events may come from a server that closes every watch at once: back off.
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
    const asked = this.#relistWaiters.length;
    this.#behindSinceMs ??= clock.monotonic();
    const list = await this.#fetch(signal, store.keep);
    metrics?.reflectorLists.inc({ resource: resource.plural });
    // Create the series at 0, because `increase()` does not count the first sample of a new series.
    metrics?.reflectorMisses.inc({ resource: resource.plural }, 0);
    store.replace(list.items);
    this.#version = list.version;
    const answered = this.#relistWaiters.splice(0, asked);
    this.#mustList = this.#relistWaiters.length > 0;
    // This list is newer than the one of a running comparison.
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
    // No resourceVersion: the list is then at least as new as every acknowledged write.
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
        if (!signal.aborted)
          logger.info(
            { resource: resource.plural, error: errorText(error) },
            "cannot list objects to compare them with the watch",
          );
      } finally {
        this.#comparison = undefined;
      }
    }
  }

  /**
   * Lists, waits until the watch has reached the list's version, and counts the objects that differ although the watch
   * reported no change of them. Any miss makes the reflector list again.
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

/** One comparison: the keys that the watch has reported since it began, and the version that the watch must reach. */
class Comparison {
  readonly #touched = new Set<string>();
  readonly #done = Promise.withResolvers<boolean>();
  #target: string | undefined;

  /** True: compare now. False: a newer list has made this comparison useless. */
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

/** Keeps only the fields that a comparison reads. */
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

/**
 * The server was unreachable, failed, or throttled the request. A 410 is no outage: the server is healthy, and a list
 * can follow at once.
 */
function isOutage(failure: unknown): boolean {
  return !mustRelist(failure) && (isServerFault(failure) || isTooManyRequests(failure));
}

/**
 * Whether a watch can't continue from the current resourceVersion. Apart from 410: the server does not know the version
 * yet (after a restore from a backup), rejects it, or sends events that can't be parsed and would fail again.
 */
function mustRelist(failure: unknown): boolean {
  if (!(failure instanceof KubeApiError) || isMalformed(failure)) return true;
  if (isGone(failure) || failure.status === 400) return true;
  return failure.details?.causes?.some((cause) => cause.reason === "ResourceVersionTooLarge") === true;
}
