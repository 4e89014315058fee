import type { KubeObject } from "../kube/objects.ts";

/** Index functions by index name. Each returns the index values of an object. */
export type Indexers<T> = Readonly<Record<string, (object: T) => readonly string[]>>;

export interface Cache<T extends KubeObject> {
  get(key: string): T | undefined;
  list(): T[];
  /**
   * Returns the same array until one of its objects changes, because loops call this far more often.
   * @throws TypeError for an undeclared index.
   */
  byIndex(index: string, value: string): readonly T[];
  set(key: string, object: T): void;
  /** Returns the removed object. */
  delete(key: string): T | undefined;
  versions(): VersionedKeys;
}

/** The keys under one index value, and their objects. `objects` is null when they must be gathered again. */
interface Entry<T> {
  readonly keys: Set<string>;
  objects: readonly T[] | null;
}

const NONE: readonly never[] = [];

/** Stores objects by key and by index value. An object whose index function throws has no values in that index. */
export function createCache<T extends KubeObject>(indexers: Indexers<T>): Cache<T> {
  const objects = new Map<string, T>();
  // index -> value -> keys. Invariant: a key is listed under exactly the index values of its current object.
  const indexes = new Map(Object.keys(indexers).map((name) => [name, new Map<string, Entry<T>>()]));

  const valuesOf = (name: string, object: T): readonly string[] => {
    try {
      return indexers[name]?.(object) ?? [];
    } catch {
      return [];
    }
  };
  const unindex = (key: string, object: T) => {
    for (const [name, values] of indexes) {
      for (const value of valuesOf(name, object)) {
        const entry = values.get(value);
        if (!entry) continue;
        entry.keys.delete(key);
        entry.objects = null;
        if (entry.keys.size === 0) values.delete(value);
      }
    }
  };
  const index = (key: string, object: T) => {
    for (const [name, values] of indexes) {
      for (const value of valuesOf(name, object)) {
        const entry = values.get(value) ?? { keys: new Set<string>(), objects: null };
        entry.keys.add(key);
        entry.objects = null;
        values.set(value, entry);
      }
    }
  };

  return {
    get: (key) => objects.get(key),
    list: () => [...objects.values()],
    byIndex(name, value) {
      const values = indexes.get(name);
      if (!values) throw new TypeError(`there is no index ${name}`);
      const entry = values.get(value);
      if (!entry) return NONE;
      entry.objects ??= [...entry.keys].flatMap((key) => objects.get(key) ?? []);
      return entry.objects;
    },
    set(key, object) {
      const previous = objects.get(key);
      if (previous) unindex(key, previous);
      objects.set(key, object);
      index(key, object);
    },
    delete(key) {
      const previous = objects.get(key);
      if (previous) unindex(key, previous);
      objects.delete(key);
      return previous;
    },
    *versions() {
      for (const [key, object] of objects) yield [key, object.metadata.resourceVersion] as const;
    },
  };
}

/** The keys of objects with their resourceVersions. */
export type VersionedKeys = Iterable<readonly [key: string, resourceVersion: string | undefined]>;

/** Returns `namespace/name`, or only the name for cluster-scoped objects. Caches and work queues use it as the key. */
export function keyOf(object: KubeObject): string {
  return objectKey(object.metadata.namespace, object.metadata.name ?? "");
}

export function objectKey(namespace: string | undefined, name: string): string {
  return namespace === undefined || namespace === "" ? name : `${namespace}/${name}`;
}

/**
 * Compares the resourceVersions of one resource. The API server uses decimal numbers of any size for all resources it
 * stores (KEP-5504, comparable resource version). Returns NaN if either version is not such a number.
 */
export function compareVersions(a: string, b: string): number {
  if (!/^\d+$/.test(a) || !/^\d+$/.test(b)) return Number.NaN;
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}
