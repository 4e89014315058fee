import type { IncomingHttpHeaders } from "node:http";
import { redact } from "../observe/logger.ts";
import { KubeApiError, type StatusDetails } from "./errors.ts";

/** A Status of meta/v1, as the API server says what went wrong. */
interface Status {
  readonly kind: "Status";
  readonly message?: string;
  readonly reason?: string;
  readonly code?: number;
  readonly details?: StatusDetails;
}

/** Text of a proxy that is no Status: enough of it to recognize, no more. */
const MAX_FOREIGN_TEXT = 200;
/** Messages of the API server quote whole objects at times. */
const MAX_MESSAGE = 4096;

/** The error of an answer of status 300 or more. `about` says which request it was. */
export function errorOfAnswer(
  about: string,
  answer: { status: number; headers: IncomingHttpHeaders; body: Buffer },
  write: boolean,
): KubeApiError {
  const status = parseStatus(answer.body);
  const text = status?.message ?? foreignText(answer);
  return new KubeApiError(`${about}: ${clean(text, MAX_MESSAGE)}`, {
    status: answer.status,
    reason: status?.reason ?? "",
    details: status?.details,
    retryAfterMs: retryAfterMs(answer.headers, status),
    // A server that fails while it works on a write (a time-out of etcd, an aggregated server, a proxy) can not say
    // whether the write was done.
    maybeApplied: write && answer.status >= 500,
  });
}

/** The error that an ERROR event of a watch carries. */
export function errorOfEvent(about: string, object: unknown): KubeApiError {
  const status = isStatus(object) ? object : undefined;
  return new KubeApiError(`${about}: ${clean(status?.message ?? "the watch reported an error", MAX_MESSAGE)}`, {
    status: status?.code ?? 500,
    reason: status?.reason ?? "",
    details: status?.details,
    retryAfterMs: retryAfterMs({}, status),
  });
}

/** Retry-After in whole seconds is all that API servers send; its form as a date is left to the caller's backoff. */
function retryAfterMs(headers: IncomingHttpHeaders, status: Status | undefined): number | undefined {
  const header = headers["retry-after"];
  if (header !== undefined && /^\d+$/.test(header)) return Number(header) * 1000;
  const seconds = status?.details?.retryAfterSeconds;
  return typeof seconds === "number" && seconds > 0 ? seconds * 1000 : undefined;
}

function parseStatus(body: Buffer): Status | undefined {
  try {
    const parsed: unknown = JSON.parse(body.toString("utf8"));
    return isStatus(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function isStatus(value: unknown): value is Status {
  return typeof value === "object" && value !== null && (value as { kind?: unknown }).kind === "Status";
}

function foreignText({
  status,
  headers,
  body,
}: {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}): string {
  const type = headers["content-type"] ?? "";
  const text = type.startsWith("text/plain") ? body.toString("utf8").trim() : "";
  return text === ""
    ? `HTTP ${status}, not an answer of the API server`
    : `HTTP ${status}: ${clean(text, MAX_FOREIGN_TEXT)}`;
}

function clean(text: string, bound: number): string {
  const safe = redact(text);
  return safe.length <= bound ? safe : `${safe.slice(0, bound)}...`;
}
