import { errorText } from "../core/errors.ts";
import type { KubeObject } from "../kube/objects.ts";
import type { WatchEvent } from "../kube/watch.ts";
import { type Cache, createCache, type Indexers, keyOf, objectKey } from "./cache.ts";
import { Reflector, type ReflectorOptions, type ReflectorStore } from "./reflector.ts";

/**
 * A change of the cache. When an object is replaced by a new one of the same name, handlers get `deleted`, then
 * `added`.
 */
export interface Change<T extends KubeObject> {
  readonly type: "added" | "updated" | "deleted";
  /** The current state, or for `deleted` the last known state. */
  readonly object: T;
  /** The object that the cache held before the change. */
  readonly previous?: T;
}

export type ChangeHandler<T extends KubeObject> = (change: Change<T>) => void;

export interface InformerOptions<T extends KubeObject> extends Omit<ReflectorOptions<T>, "store"> {
  /**
   * Reduces an object before it is cached. The default drops `metadata.managedFields`. Must keep the names, uid and
   * resourceVersion in metadata.
   */
  readonly transform?: (object: T) => T;
  readonly indexes?: Indexers<T>;
}

/**
 * A reflector with a cache and subscribers. Callers share the returned objects and must not change them. The cache lags
 * behind the server: read live before anything destructive.
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

  /** Resolves when the cache holds the first list and the handlers have run for it. */
  get synced(): Promise<void> {
    return this.#reflector.synced;
  }

  get hasSynced(): boolean {
    return this.#reflector.hasSynced;
  }

  /** Resolves when the cache is at least as new as this call. Stays pending while the server is unreachable. */
  relist(): Promise<void> {
    return this.#reflector.relist();
  }

  /** The error of the last list or watch; undefined after a success. */
  get lastError(): unknown {
    return this.#reflector.lastError;
  }

  /** How long the cache may have been behind the server, in milliseconds. 0 means that it is up to date. */
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
   * Returns the objects with this index value, as the same array until one of them changes.
   * @throws TypeError for an undeclared index.
   */
  byIndex(index: string, key: string): readonly T[] {
    return this.#cache.byIndex(index, key);
  }

  /**
   * Calls `fn` for every later change, after an `added` for each cached object. If a handler throws, the error is
   * logged and the handler still gets the next change.
   * @returns a function that ends the subscription.
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
        "a handler of an informer failed",
      );
    }
  }
}

/**
 * managedFields take an eighth of the memory of a cached Pod, and nothing reads them. A PUT without them does not
 * change them.
 */
function dropManagedFields<T extends KubeObject>(object: T): T {
  if (object.metadata.managedFields === undefined) return object;
  const { managedFields: _dropped, ...metadata } = object.metadata;
  return { ...object, metadata };
}
