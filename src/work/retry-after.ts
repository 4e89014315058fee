import type { Backoff, Random } from "../core/backoff.ts";
import { WorkApiError } from "./errors.ts";

/** A server that asks for more is asked again after this: one wrong header must not stop an Environment for a day. */
export const MAX_RETRY_AFTER_MS = 5 * 60_000;
/** Those who were told the same time do not all come back in the same instant. */
const SPREAD_MS = 1_000;

/**
 * Milliseconds that a `Retry-After` header asks for, bounded; undefined when it is absent or means nothing.
 * @param serverDateMs the reply's Date, which an HTTP date is compared with: the two clocks may differ.
 */
export function parseRetryAfter(header: string | undefined, serverDateMs: number): number | undefined {
  const text = header?.trim();
  if (!text) return undefined;
  // RFC 9110, 10.2.3: seconds or an HTTP date. Fractions are no part of it, but some servers send them.
  const ms = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1_000 : httpDateMs(text) - serverDateMs;
  return Number.isNaN(ms) ? undefined : Math.min(MAX_RETRY_AFTER_MS, Math.max(0, ms));
}

/** How long to wait after `error` before the same call: the backoff's next delay, or what the server asked for if longer. */
export function retryDelayMs(error: unknown, backoff: Backoff, random: Random = Math.random): number {
  return Math.max(backoff.next(), askedPauseMs(error, random) ?? 0);
}

/** How long the server asked to wait after `error`, in milliseconds, and a little more; null: it did not say. */
export function askedPauseMs(error: unknown, random: Random = Math.random): number | null {
  const asked = error instanceof WorkApiError ? error.retryAfterMs : undefined;
  return asked === undefined ? null : asked + SPREAD_MS * random();
}

/** Date.parse takes "5 apples" for a date; an HTTP date begins with the name of a day. */
function httpDateMs(text: string): number {
  return /^[A-Za-z]{3,9},? /.test(text) ? Date.parse(text) : Number.NaN;
}
