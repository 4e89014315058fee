import type { Backoff, Random } from "../core/backoff.ts";
import { OperatorError } from "../core/errors.ts";
import type { WorkCall } from "./types.ts";

/**
 * Errors of the Work API, grouped by what a caller can do about them:
 * - `auth` (401, 403): nothing helps until the key changes;
 * - `not-found` (404), `conflict` (409), `precondition` (412), `bad-request` (other 4xx): a retry gets the same answer;
 * - `rate-limited` (429, or Berth's own budget is exhausted): wait, see `retryAfterMs`;
 * - `server` (5xx), `network`, `timeout` (no complete answer in time, also 408): retry with backoff;
 * - `protocol`: not an answer of this API (wrong shape, too large, a redirect, a web page), or an id that can't be
 *   sent;
 * - `bad-item`: an answer of this API with a malformed item; all other items are served;
 * - `aborted`: the caller's own signal aborted.
 */
const WORK_ERROR_KINDS = [
  "auth",
  "not-found",
  "conflict",
  "precondition",
  "rate-limited",
  "bad-request",
  "server",
  "network",
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

/** A Work API call without a usable answer. The message says what to do and never contains a secret. */
export class WorkApiError extends OperatorError {
  readonly kind: WorkErrorKind;
  readonly call: WorkCall;
  /** The HTTP status, if there was an answer. */
  declare readonly status?: number;
  /** The bounded `Retry-After` of the server, in milliseconds from the answer. */
  declare readonly retryAfterMs?: number;
  /**
   * True if the request may have taken effect, or still may: it was at least partly sent, and nothing says that it was
   * refused.
   */
  readonly maybeApplied: boolean;
  /** The platform's id of the request, for its support. */
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

/** 408 (Request Timeout) does not judge the request, so a retry is right, unlike for other 4xx. */
const REQUEST_TIMEOUT = 408;

/** The kind of an HTTP status that is not a success. Redirects are `protocol`, because they are never followed. */
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

/**
 * Whether the request may have taken effect despite the status: a gateway's 502 or 504 says nothing about its backend.
 */
export function statusMaybeApplied(status: number): boolean {
  return status >= 500 || status === REQUEST_TIMEOUT;
}

/** The longest honored Retry-After: one wrong header must not stop an Environment for a day. */
export const MAX_RETRY_AFTER_MS = 5 * 60_000;
/** Spreads the retries of clients that got the same Retry-After. */
const SPREAD_MS = 1_000;

/**
 * Parses a `Retry-After` header into bounded milliseconds; undefined if it is absent or invalid.
 * @param serverDateMs the reply's Date, the reference for an HTTP date, because the two clocks may differ.
 */
export function parseRetryAfter(header: string | undefined, serverDateMs: number): number | undefined {
  const text = header?.trim();
  if (!text) return undefined;
  // RFC 9110, 10.2.3: seconds or an HTTP date. It does not allow fractions, but some servers send them.
  const ms = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1_000 : httpDateMs(text) - serverDateMs;
  return Number.isNaN(ms) ? undefined : Math.min(MAX_RETRY_AFTER_MS, Math.max(0, ms));
}

/** How long to wait before retrying after `error`: the backoff's next delay, or the server's Retry-After if longer. */
export function retryDelayMs(error: unknown, backoff: Backoff, random: Random = Math.random): number {
  return Math.max(backoff.next(), askedPauseMs(error, random) ?? 0);
}

/** The server's Retry-After in `error`, in milliseconds, plus jitter; null if it has none. */
export function askedPauseMs(error: unknown, random: Random = Math.random): number | null {
  const asked = error instanceof WorkApiError ? error.retryAfterMs : undefined;
  return asked === undefined ? null : asked + SPREAD_MS * random();
}

/** Date.parse accepts "5 apples" as a date, so require the name of a day, with which an HTTP date begins. */
function httpDateMs(text: string): number {
  return /^[A-Za-z]{3,9},? /.test(text) ? Date.parse(text) : Number.NaN;
}

/** True if the answer is final, so that a retry would not change it. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof WorkApiError) || error.maybeApplied) return false;
  return (
    error.kind === "not-found" ||
    error.kind === "conflict" ||
    error.kind === "precondition" ||
    error.kind === "bad-request"
  );
}
