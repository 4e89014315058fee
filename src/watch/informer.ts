import { errorText } from "../core/errors.ts";
import type { KubeObject } from "../kube/objects.ts";
import type { WatchEvent } from "../kube/watch.ts";
import { type Cache, createCache, type Indexers, keyOf, objectKey } from "./cache.ts";
import { Reflector, type ReflectorOptions, type ReflectorStore } from "./reflector.ts";

/** A change of the cache. An object that was replaced by another of the same name is a `deleted`, then an `added`. */
export interface Change<T extends KubeObject> {
  readonly type: "added" | "updated" | "deleted";
  /** As it is now; for `deleted`, the last state seen. */
  readonly object: T;
  /** As the cache had it before. */
  readonly previous?: T;
}

export type ChangeHandler<T extends KubeObject> = (change: Change<T>) => void;

export interface InformerOptions<T extends KubeObject> extends Omit<ReflectorOptions<T>, "store"> {
  /** What of an object is kept; without it everything but `metadata.managedFields`. Must keep metadata's names and versions. */
  readonly transform?: (object: T) => T;
  readonly indexes?: Indexers<T>;
}

/**
 * A reflector with a cache and subscribers. What it hands out is shared: read it, never change it. It lags behind the
 * server; read live before anything destructive.
 */
export class Informer<T extends KubeObject> {
  readonly #options: InformerOptions<T>;
  readonly #transform: (object: T) => T;
  readonly #cache: Cache<T>;
  readonly #reflector: Reflector<T>;
  readonly #handlers = new Set<ChangeHandler<T>>();

  constructor(options: InformerOptions<T>) {
    this.#options = options;
    this.#transform = options.transform ?? dropManagedFields;
    this.#cache = createCache(options.indexes ?? {});
    const store: ReflectorStore<T> = {
      keep: this.#transform,
      replace: (items) => this.#replace(items),
      apply: (event) => this.#apply(event),
      versions: () => this.#cache.versions(),
    };
    this.#reflector = new Reflector({ ...options, store });
  }

  /** Runs until the signal aborts. Never rejects. */
  run(signal: AbortSignal): Promise<void> {
    return this.#reflector.run(signal);
  }

  /** Resolves when the first list is in the cache and its handlers have been called. */
  get synced(): Promise<void> {
    return this.#reflector.synced;
  }

  get hasSynced(): boolean {
    return this.#reflector.hasSynced;
  }

  /** Resolves when the cache is at least as new as this call; while the server cannot be reached it does not. */
  relist(): Promise<void> {
    return this.#reflector.relist();
  }

  /** What the last list or watch failed with; undefined while all is well. */
  get lastError(): unknown {
    return this.#reflector.lastError;
  }

  /** For how long the cache may be behind the server, in milliseconds; 0: it follows. */
  get behindMs(): number {
    return this.#reflector.behindMs;
  }

  get(namespace: string | undefined, name: string): T | undefined {
    return this.#cache.get(objectKey(namespace, name));
  }

  list(): T[] {
    return this.#cache.list();
  }

  /**
   * Objects for which the index function gave this key: the same array until one of them changes, comes or goes.
   * Throws TypeError for an index that was not declared.
   */
  byIndex(index: string, key: string): readonly T[] {
    return this.#cache.byIndex(index, key);
  }

  /**
   * Calls `fn` for every change from now on; what is in the cache already comes first, as `added`. A handler that throws
   * is logged and called again for the next change.
   * @returns ends the subscription.
   */
  subscribe(fn: ChangeHandler<T>): () => void {
    const handler: ChangeHandler<T> = (change) => fn(change);
    this.#handlers.add(handler);
    for (const object of this.#cache.list()) this.#call(handler, { type: "added", object });
    return () => void this.#handlers.delete(handler);
  }

  #replace(items: readonly T[]): void {
    const seen = new Set<string>();
    for (const item of items) {
      seen.add(keyOf(item));
      this.#set(item);
    }
    for (const object of this.#cache.list()) {
      if (!seen.has(keyOf(object))) this.#delete(object);
    }
  }

  #apply({ type, object }: WatchEvent<T>): void {
    switch (type) {
      case "ADDED":
      case "MODIFIED":
        this.#set(this.#transform(object));
        break;
      case "DELETED":
        this.#delete(this.#transform(object));
        break;
      case "BOOKMARK":
        break;
    }
  }

  #set(object: T): void {
    const key = keyOf(object);
    const previous = this.#cache.get(key);
    if (previous && previous.metadata.uid !== object.metadata.uid) {
      this.#delete(previous);
      this.#set(object);
      return;
    }
    if (previous && previous.metadata.resourceVersion === object.metadata.resourceVersion) return;
    this.#cache.set(key, object);
    this.#emit(previous ? { type: "updated", object, previous } : { type: "added", object });
  }

  #delete(object: T): void {
    const previous = this.#cache.delete(keyOf(object));
    if (previous) this.#emit({ type: "deleted", object, previous });
  }

  #emit(change: Change<T>): void {
    for (const handler of this.#handlers) this.#call(handler, change);
  }

  #call(handler: ChangeHandler<T>, change: Change<T>): void {
    try {
      handler(change);
    } catch (error) {
      const { logger, resource } = this.#options;
      logger.error(
        { resource: resource.plural, object: keyOf(change.object), change: change.type, error: errorText(error) },
        "a handler of an informer threw",
      );
    }
  }
}

/** They are an eighth of the memory of a cached Pod and nobody reads them; a PUT without them leaves them as they are. */
export function dropManagedFields<T extends KubeObject>(object: T): T {
  if (object.metadata.managedFields === undefined) return object;
  const { managedFields: _dropped, ...metadata } = object.metadata;
  return { ...object, metadata };
}
