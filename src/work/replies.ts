import { errorText } from "../core/errors.ts";
import { isRecord } from "../core/json.ts";
import { redact } from "../observe/logger.ts";
import { kindOfStatus, parseRetryAfter, statusMaybeApplied, WorkApiError, type WorkErrorKind } from "./errors.ts";
import { HttpFailure, type HttpReply } from "./http.ts";
import type { WorkCall } from "./types.ts";

/**
 * The input of an error about a call. It contains the key, so that the key can be masked. Never log the whole context.
 */
export interface CallContext {
  readonly call: WorkCall;
  readonly origin: string;
  readonly environmentId: string;
  readonly workId: string | undefined;
  readonly key: string;
  readonly apiKey: boolean;
  readonly timeoutMs: number;
}

const MAX_SHOWN_ID = 80;

/** The reply's Date in milliseconds since the epoch; null if it is absent or invalid. */
export function replyDateMs(reply: HttpReply): number | null {
  const ms = Date.parse(reply.headers.get("date") ?? "");
  return Number.isNaN(ms) ? null : ms;
}

/** The Retry-After of a refusal, in milliseconds. `nowMs` is the wall clock, used for replies without a Date. */
export function replyRetryAfterMs(reply: HttpReply, nowMs: number): number | undefined {
  if (reply.status < 400) return undefined;
  return parseRetryAfter(reply.headers.get("retry-after"), replyDateMs(reply) ?? nowMs);
}

/** The error for a status that is not a success. */
export function refusalError(context: CallContext, reply: HttpReply, nowMs: number): WorkApiError {
  const { status } = reply;
  const kind = kindOfStatus(status);
  const said = serverErrorText(context, reply);
  const answer = `${status}${said ? ` ${said}` : ""}`;
  return new WorkApiError({
    kind,
    call: context.call,
    status,
    retryAfterMs: replyRetryAfterMs(reply, nowMs),
    maybeApplied: statusMaybeApplied(status),
    requestId: requestId(context, reply),
    message: `${title(context)}: ${refusalMeaning(kind, status, context, reply)} (${answer})`,
  });
}

/** The error for a success with a body that is not of this API. The server may have applied the request. */
export function unusableError(context: CallContext, reply: HttpReply, why: string): WorkApiError {
  return new WorkApiError({
    kind: "protocol",
    call: context.call,
    status: reply.status,
    maybeApplied: true,
    requestId: requestId(context, reply),
    message: `${title(context)}: answered ${reply.status}, but ${why}${webPageHint(reply)}; check that spec.api.baseUrl (${context.origin}) is the Work API, and that no proxy rewrites its answers`,
  });
}

/** The error for an item that can't be served or parsed, in an answer of this API. */
export function badItemError(call: WorkCall, { id, why }: { id: string; why: string }, key?: string): WorkApiError {
  const shown = shownText(id, key === undefined ? [] : [key], MAX_SHOWN_ID);
  return new WorkApiError({
    kind: "bad-item",
    call,
    maybeApplied: true,
    message: `Work API ${call}: item ${shown} is malformed: ${why}; stop it in the platform, or update Berth`,
  });
}

/** The error for a request without a complete reply. */
export function failureError(context: CallContext, failure: HttpFailure): WorkApiError {
  const kinds: Record<HttpFailure["kind"], WorkErrorKind> = {
    timeout: "timeout",
    aborted: "aborted",
    network: "network",
    "too-large": "protocol",
  };
  return new WorkApiError({
    kind: kinds[failure.kind],
    call: context.call,
    status: failure.status,
    maybeApplied: failure.sent,
    message: `${title(context)}: ${failureMeaning(context, failure)}`,
    // Keep the text of undici's error for logs, but not the object, which could reference the request.
    cause:
      failure.kind === "network"
        ? new Error(causeText(context, failure))
        : failure.kind === "too-large"
          ? failure
          : undefined,
  });
}

/** Whether a call failed because its answer exceeded the call's limit. */
export function isTooLarge(error: unknown): boolean {
  return error instanceof WorkApiError && error.cause instanceof HttpFailure && error.cause.kind === "too-large";
}

function title({ call, workId, key }: CallContext): string {
  return workId === undefined ? `Work API ${call}` : `Work API ${call} of ${shownText(workId, [key], MAX_SHOWN_ID)}`;
}

function refusalMeaning(kind: WorkErrorKind, status: number, context: CallContext, reply: HttpReply): string {
  const environment = shownText(context.environmentId, [context.key], MAX_SHOWN_ID);
  const credential = context.apiKey ? "API key" : "environment key";
  switch (kind) {
    case "auth":
      return status === 401
        ? `the ${credential} was rejected; put a valid key of environment ${environment} into the Secret that spec.api.keySecretRef names`
        : `the ${credential} may not do this; use the environment key of ${environment} (not an organization's API key), and check spec.api.workspaceId`;
    case "not-found":
      return context.workId === undefined
        ? `environment ${environment} is unknown; check spec.environmentId and spec.api.workspaceId, and that the key belongs to it`
        : "the work item is unknown";
    case "conflict":
      return "refused, because the work item is in another state";
    case "precondition":
      return "refused, because the work item has changed";
    case "rate-limited":
      return "too many requests; Berth tries again later, more slowly";
    case "server":
      return "the server failed; Berth tries again";
    case "timeout":
      return "the server did not get the request in time; Berth tries again";
    case "protocol":
      return redirectMeaning(context, reply);
    default:
      return "the server refused the request; check spec.api and the version of Berth";
  }
}

/** Redirects are never followed, because the target would get the key. */
function redirectMeaning(context: CallContext, reply: HttpReply): string {
  const location = reply.headers.get("location");
  const target = location === undefined ? null : URL.parse(location, context.origin);
  // A URL of another scheme has no origin, so it can't be an API.
  if (!target || target.origin === "null")
    return `the answer is not from this API; check spec.api.baseUrl (${context.origin})`;
  const where = shownText(target.origin, [context.key]);
  return `redirected to ${where}, which Berth does not follow, because it would send the key there; set spec.api.baseUrl to the final address`;
}

function failureMeaning(context: CallContext, failure: HttpFailure): string {
  const sent = failure.sent ? "" : ", before the request was sent";
  switch (failure.kind) {
    case "timeout":
      return `no complete answer within ${context.timeoutMs} ms${sent}; check that ${context.origin} is reachable`;
    case "aborted":
      return `cancelled${sent}`;
    case "too-large":
      return `the answer is too large for this API; check spec.api.baseUrl (${context.origin})`;
    case "network":
      return `the connection to ${context.origin} failed${sent} (${causeText(context, failure)})${networkHint(failure)}`;
  }
}

function causeText(context: CallContext, failure: HttpFailure): string {
  return shownText(errorText(failure.cause), [context.key]);
}

/** Hints for the failures that are hardest to diagnose. */
function networkHint(failure: HttpFailure): string {
  const text = `${errorCode(failure.cause)} ${errorText(failure.cause)}`;
  if (/ENOTFOUND|EAI_AGAIN/.test(text)) return "; check the host in spec.api.baseUrl and the cluster's DNS";
  if (/ALTNAME/.test(text)) return "; check spec.api.baseUrl, because the certificate is for another name";
  if (/CERT|certificate/i.test(text))
    return "; if a proxy or private CA signs it, set NODE_EXTRA_CA_CERTS to its CA file";
  if (/ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/.test(text))
    return "; check spec.api.baseUrl, network policies and HTTPS_PROXY";
  if (/proxy/i.test(text)) return "; check HTTPS_PROXY";
  return "";
}

function errorCode(error: unknown): string {
  return isRecord(error) && typeof error["code"] === "string" ? error["code"] : "";
}

/** Returns `type: message` from the API's error body, or a hint that the body was a web page. */
function serverErrorText(context: CallContext, reply: HttpReply): string {
  let body: unknown;
  try {
    body = JSON.parse(reply.body.toString("utf8"));
  } catch {
    return webPageHint(reply).replace(/^, /, "");
  }
  const error = isRecord(body) ? body["error"] : undefined;
  if (!isRecord(error)) return "";
  const words = [error["type"], error["message"]].filter((part) => typeof part === "string" && part !== "");
  return shownText(words.join(": "), [context.key]);
}

function webPageHint(reply: HttpReply): string {
  return isWebPage(reply) ? ", a web page" : "";
}

/** Whether the reply is a web page, so that something other than the API answered. */
export function isWebPage(reply: HttpReply): boolean {
  const type = reply.headers.get("content-type") ?? "";
  return type.includes("html") || /^\s*<(!doctype|html)/i.test(reply.body.toString("latin1", 0, 64));
}

function requestId(context: CallContext, reply: HttpReply): string | undefined {
  const id = reply.headers.get("request-id") ?? reply.headers.get("x-request-id");
  return id === undefined ? undefined : shownText(id, [context.key], MAX_SHOWN_ID);
}

/** The number of characters shown of a server's text. */
const MAX_SHOWN = 300;
/** Shorter than any credential: masking such a short value would only make the text unreadable. */
const MIN_MASKED = 8;
const MASK = "[redacted]";

/**
 * Makes a server's text safe for an error message. Masks credentials of known form and the given secrets, also when
 * encoded for a URL or JSON. Removes control characters and line breaks, and truncates the rest.
 */
export function shownText(text: string, secrets: readonly string[], maxLength = MAX_SHOWN): string {
  // Mask before truncating: half a key at the end of a text would no longer match.
  let shown = maskValues(text, secrets);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  shown = shown.replaceAll(/[\s\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();
  // Mask again: removing a line break may have joined the two halves of a secret.
  shown = redact(maskValues(shown, secrets));
  return shown.length <= maxLength ? shown : `${shown.slice(0, maxLength).trimEnd()}...`;
}

function maskValues(text: string, secrets: readonly string[]): string {
  let masked = text;
  for (const secret of secrets) {
    if (secret.length < MIN_MASKED) continue;
    const forms = [secret, encodeURIComponent(secret.toWellFormed()), JSON.stringify(secret).slice(1, -1)];
    for (const form of forms) masked = masked.replaceAll(form, MASK);
  }
  return masked;
}
