import type { VersionedKeys } from "./object-key.ts";
import type { KubeObject } from "./objects.ts";

/** Functions that say under which keys of an index an object is found. */
export type Indexers<T> = Readonly<Record<string, (object: T) => readonly string[]>>;

export interface Cache<T extends KubeObject> {
  get(key: string): T | undefined;
  list(): T[];
  /** Throws TypeError for an index that was not declared. */
  byIndex(index: string, value: string): T[];
  set(key: string, object: T): void;
  /** Returns what was there. */
  delete(key: string): T | undefined;
  versions(): VersionedKeys;
}

/** Objects by key, and by what the indexers say of them. An indexer that throws finds an object under no key. */
export function createCache<T extends KubeObject>(indexers: Indexers<T>): Cache<T> {
  const objects = new Map<string, T>();
  // index -> value -> keys. Invariant: a key stands exactly under the values its current object has.
  const indexes = new Map(Object.keys(indexers).map((name) => [name, new Map<string, Set<string>>()]));

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
        const keys = values.get(value);
        keys?.delete(key);
        if (keys?.size === 0) values.delete(value);
      }
    }
  };
  const index = (key: string, object: T) => {
    for (const [name, values] of indexes) {
      for (const value of valuesOf(name, object)) {
        const keys = values.get(value) ?? new Set<string>();
        values.set(value, keys.add(key));
      }
    }
  };

  return {
    get: (key) => objects.get(key),
    list: () => [...objects.values()],
    byIndex(name, value) {
      const values = indexes.get(name);
      if (!values) throw new TypeError(`no index is called ${name}`);
      const found: T[] = [];
      for (const key of values.get(value) ?? []) {
        const object = objects.get(key);
        if (object !== undefined) found.push(object);
      }
      return found;
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
