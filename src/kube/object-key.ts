import type { KubeObject } from "./objects.ts";

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
