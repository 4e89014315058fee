import type { Backoff, Random } from "../core/backoff.ts";
import { OperatorError } from "../core/errors.ts";
import type { WorkCall } from "./types.ts";

/**
 * Errors of the Work API by what a caller can do about them:
 * - `auth` (401, 403): nothing helps until the key changes;
 * - `not-found` (404), `conflict` (409), `precondition` (412), `bad-request` (other 4xx): a repeat says the same;
 * - `rate-limited` (429, or the own budget is exhausted): wait, see `retryAfterMs`;
 * - `inner-address`: spec.api.baseUrl leads into somebody's own network, which the operator was not told to allow;
 * - `server` (5xx), `network`, `timeout` (no whole answer in time, also 408): repeat with backoff;
 * - `protocol`: an answer that is none of this API (wrong shape, too large, a redirect, a web page), or an id that
 *   cannot be sent;
 * - `bad-item`: an answer of this API, in which an item is not as it should be: all others are served;
 * - `aborted`: the caller's own signal.
 */
export const WORK_ERROR_KINDS = [
  "auth",
  "not-found",
  "conflict",
  "precondition",
  "rate-limited",
  "bad-request",
  "server",
  "network",
  "inner-address",
  "timeout",
  "protocol",
  "bad-item",
  "aborted",
] as const;
export type WorkErrorKind = (typeof WORK_ERROR_KINDS)[number];

export interface WorkApiErrorDetails {
  readonly kind: WorkErrorKind;
  readonly call: WorkCall;
  readonly message: string;
  readonly status?: number | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly maybeApplied?: boolean | undefined;
  readonly requestId?: string | undefined;
  readonly cause?: unknown;
}

/** A call of the Work API without a usable answer. Its message says what to do and never holds a secret. */
export class WorkApiError extends OperatorError {
  readonly kind: WorkErrorKind;
  readonly call: WorkCall;
  /** HTTP status, when there was an answer. */
  declare readonly status?: number;
  /** What the server asked for in `Retry-After`, bounded; milliseconds from the answer. */
  declare readonly retryAfterMs?: number;
  /** True when the request may have taken effect, now or later: it was (partly) sent and nothing says it was refused. */
  readonly maybeApplied: boolean;
  /** The platform's name of the request, for its support. */
  declare readonly requestId?: string;

  constructor(details: WorkApiErrorDetails) {
    super("WorkApi", details.message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = details.kind;
    this.call = details.call;
    this.maybeApplied = details.maybeApplied ?? false;
    if (details.status !== undefined) this.status = details.status;
    if (details.retryAfterMs !== undefined) this.retryAfterMs = details.retryAfterMs;
    if (details.requestId !== undefined) this.requestId = details.requestId;
  }
}

/** 408 (Request Timeout) is no verdict on the request: a repeat is right, unlike for other 4xx. */
const REQUEST_TIMEOUT = 408;

/** The kind of an HTTP status that is not a success. Redirects are `protocol`: they are never followed. */
export function kindOfStatus(status: number): WorkErrorKind {
  switch (status) {
    case 401:
    case 403:
      return "auth";
    case 404:
      return "not-found";
    case REQUEST_TIMEOUT:
      return "timeout";
    case 409:
      return "conflict";
    case 412:
      return "precondition";
    case 429:
      return "rate-limited";
  }
  if (status >= 500) return "server";
  return status >= 400 ? "bad-request" : "protocol";
}

/** Whether a status leaves open that the request took effect: a gateway's 502 or 504 says nothing about its backend. */
export function statusMaybeApplied(status: number): boolean {
  return status >= 500 || status === REQUEST_TIMEOUT;
}

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

/** True where a step failed because the answer is a final word, which a repeat would not change. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof WorkApiError) || error.maybeApplied) return false;
  return (
    error.kind === "not-found" ||
    error.kind === "conflict" ||
    error.kind === "precondition" ||
    error.kind === "bad-request"
  );
}
