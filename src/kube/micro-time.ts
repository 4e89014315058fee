/**
 * RFC 3339 with six digits, as the API's MicroTime wants it: Go's decoder takes no other number of digits for a Lease.
 * @param ms milliseconds since the epoch
 */
export function microTime(ms: number): string {
  return new Date(ms).toISOString().replace("Z", "000Z");
}

/** RFC 3339 in whole seconds, as the API's Time is written. */
export function apiTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}
