import type { KubeObject } from "../kube/objects.ts";

/** Functions that say under which keys of an index an object is found. */
export type Indexers<T> = Readonly<Record<string, (object: T) => readonly string[]>>;

export interface Cache<T extends KubeObject> {
  get(key: string): T | undefined;
  list(): T[];
  /**
   * The same array until one of its objects changes, comes or goes: loops ask far more often than that happens.
   * Throws TypeError for an index that was not declared.
   */
  byIndex(index: string, value: string): readonly T[];
  set(key: string, object: T): void;
  /** Returns what was there. */
  delete(key: string): T | undefined;
  versions(): VersionedKeys;
}

/** The keys under one value of an index, and their objects; null: to be gathered anew. */
interface Entry<T> {
  readonly keys: Set<string>;
  objects: readonly T[] | null;
}

const NONE: readonly never[] = [];

/** Objects by key, and by what the indexers say of them. An indexer that throws finds an object under no key. */
export function createCache<T extends KubeObject>(indexers: Indexers<T>): Cache<T> {
  const objects = new Map<string, T>();
  // index -> value -> keys. Invariant: a key stands exactly under the values its current object has.
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
      if (!values) throw new TypeError(`no index is called ${name}`);
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

/** Keys of objects with their resourceVersions. */
export type VersionedKeys = Iterable<readonly [key: string, resourceVersion: string | undefined]>;

/** `namespace/name`, or the name alone for objects of the cluster: the key of caches and work queues. */
export function keyOf(object: KubeObject): string {
  return objectKey(object.metadata.namespace, object.metadata.name ?? "");
}

export function objectKey(namespace: string | undefined, name: string): string {
  return namespace === undefined || namespace === "" ? name : `${namespace}/${name}`;
}

/** The reverse of `objectKey`; names hold no slash. */
export function splitKey(key: string): { namespace: string | undefined; name: string } {
  const slash = key.indexOf("/");
  return slash === -1
    ? { namespace: undefined, name: key }
    : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/**
 * Orders resourceVersions of one resource. They are decimal numbers of any size for everything the API server stores
 * itself (KEP-5504, comparable resource version); others compare as NaN, which is neither before nor after.
 */
export function compareVersions(a: string, b: string): number {
  if (!/^\d+$/.test(a) || !/^\d+$/.test(b)) return Number.NaN;
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}
