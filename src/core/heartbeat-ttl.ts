import { SECOND_MS } from "./clock.ts";

/** The TTL of a lease until the server has reported one. */
export const ASSUMED_TTL_MS = 90_000;

/**
 * The TTL that the operator's own heartbeats request; the server's answer counts. A new leader takes up to 20 s to act.
 * Then a value must stay unchanged for 50 s, and the last heartbeat may be 30 s older than the old leader's end.
 * Together that exceeds the usual 90 s.
 */
export const DESIRED_TTL_MS = 180_000;

/** The TTL to request in a heartbeat: whole seconds, at least one. */
export function desiredTtlSeconds({ desiredTtlMs }: { readonly desiredTtlMs: number }): number {
  return Math.max(1, Math.round(desiredTtlMs / SECOND_MS));
}
