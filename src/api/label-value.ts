import { createHash } from "node:crypto";

/** What the API server takes as a label value: at most 63 characters of a small alphabet. */
const LABEL_VALUE = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

const HASH_LENGTH = 40;

/**
 * An id as a label value: itself where it is valid, else a hash of it. Ids from the Work API are opaque, so nothing may
 * depend on their alphabet; the whole id goes into an annotation of the same name.
 */
export function toLabelValue(id: string): string {
  if (LABEL_VALUE.test(id)) return id;
  return `h-${createHash("sha256").update(id).digest("hex").slice(0, HASH_LENGTH)}`;
}
