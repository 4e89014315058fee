import type { IncomingHttpHeaders } from "node:http";
import { defined, isRecord } from "../core/json.ts";
import { redact } from "../observe/logger.ts";
import { KubeApiError, type StatusCause, type StatusDetails } from "./errors.ts";

/** The API server's Status (meta/v1) of a failure. Fields of an unexpected type are undefined. */
interface Status {
  readonly message: string | undefined;
  readonly reason: string | undefined;
  readonly code: number | undefined;
  readonly details: StatusDetails | undefined;
}

/** Text of a proxy that is no Status: enough to recognize it. */
const MAX_FOREIGN_TEXT = 200;
/** The API server's messages sometimes quote whole objects. */
const MAX_MESSAGE = 4096;
/**
 * Upper bound of a requested delay, so that one wrong header does not stop us for a day. API priority and fairness
 * requests a second, a starting server a few.
 */
export const MAX_RETRY_AFTER_MS = 60_000;

/** Returns the error for an answer of status 300 or more. `about` names the request. */
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
    // A server that fails during a write (a timeout of etcd, an aggregated server, a proxy) cannot say whether the
    // write took effect.
    maybeApplied: write && answer.status >= 500,
  });
}

/** Returns the error for an ERROR event of a watch, or for a Status at the end of a stream. */
export function errorOfEvent(about: string, object: unknown): KubeApiError {
  const status = readStatus(object);
  return new KubeApiError(`${about}: ${clean(status?.message ?? "the stream reported an error", MAX_MESSAGE)}`, {
    status: status?.code ?? 500,
    reason: status?.reason ?? "",
    details: status?.details,
    retryAfterMs: retryAfterMs({}, status),
  });
}

/** API servers send Retry-After in whole seconds only. For a date, the caller's backoff applies. */
function retryAfterMs(headers: IncomingHttpHeaders, status: Status | undefined): number | undefined {
  const header = headers["retry-after"];
  if (header !== undefined && /^\d+$/.test(header)) return bounded(Number(header));
  const seconds = status?.details?.retryAfterSeconds;
  return seconds !== undefined && seconds > 0 ? bounded(seconds) : undefined;
}

function bounded(seconds: number): number {
  return Math.min(MAX_RETRY_AFTER_MS, seconds * 1000);
}

function parseStatus(body: Buffer): Status | undefined {
  try {
    return readStatus(JSON.parse(body.toString("utf8")));
  } catch {
    return undefined;
  }
}

function readStatus(value: unknown): Status | undefined {
  if (!isRecord(value) || value["kind"] !== "Status") return undefined;
  const { message, reason, code, details } = value;
  return {
    message: text(message),
    reason: text(reason),
    code: typeof code === "number" ? code : undefined,
    details: isRecord(details) ? readDetails(details) : undefined,
  };
}

function readDetails({ name, group, kind, causes, retryAfterSeconds }: Record<string, unknown>): StatusDetails {
  const read = {
    name: text(name),
    group: text(group),
    kind: text(kind),
    causes: Array.isArray(causes) ? causes.filter(isRecord).map(readCause) : undefined,
    retryAfterSeconds: typeof retryAfterSeconds === "number" ? retryAfterSeconds : undefined,
  };
  return defined(read);
}

function readCause({ reason, message, field }: Record<string, unknown>): StatusCause {
  return defined({ reason: text(reason), message: text(message), field: text(field) });
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
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

/** Metadata fields used for caches, keys and preconditions, by their type in meta/v1. */
const TEXTS = ["name", "namespace", "uid", "resourceVersion"];
const MAPS = ["labels", "annotations"];

/**
 * Returns why a value is not an object from the API server; null if it is one. Checks only the metadata: the server
 * types all other fields, and their readers check them.
 */
export function objectProblem(value: unknown): string | null {
  const metadata = isRecord(value) ? value["metadata"] : undefined;
  if (!isRecord(metadata)) return "it is not an object";
  if (!metadata["name"]) return "it has no name";
  for (const field of TEXTS) {
    const text = metadata[field];
    if (text !== undefined && typeof text !== "string") return `its metadata.${field} is not a string`;
  }
  for (const field of MAPS) {
    const map = metadata[field];
    const isMap = isRecord(map) && Object.values(map).every((entry) => typeof entry === "string");
    if (map !== undefined && map !== null && !isMap) return `its metadata.${field} is not a map of strings`;
  }
  return null;
}
