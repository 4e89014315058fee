import { errorText, OperatorError } from "../core/errors.ts";

/** Our own `reason` for an answer that is not the API server's. */
export const MALFORMED = "MalformedAnswer";
/** Our own `reason` for an answer that exceeds its size bound. */
export const TOO_LARGE = "AnswerTooLarge";

/** Our own `reason` for a request that was not sent, because there were no credentials. */
export const NO_CREDENTIALS = "NoCredentials";

/** One fault in a Status: the field and the problem. */
export interface StatusCause {
  readonly reason?: string;
  readonly message?: string;
  readonly field?: string;
}

export interface StatusDetails {
  readonly name?: string;
  readonly group?: string;
  readonly kind?: string;
  readonly causes?: readonly StatusCause[];
  readonly retryAfterSeconds?: number;
}

export interface KubeApiErrorOptions {
  /** 0 when the API server did not answer. */
  readonly status: number;
  readonly reason?: string;
  readonly retryAfterMs?: number | undefined;
  readonly details?: StatusDetails | undefined;
  readonly maybeApplied?: boolean;
  readonly cause?: unknown;
}

/** A request that the API server refused, or did not answer. */
export class KubeApiError extends OperatorError {
  /** The HTTP status; 0 when there was no answer. */
  readonly status: number;
  /** `reason` of the Status object (NotFound, Conflict, AlreadyExists, ...); empty when there was none. */
  readonly reason: string;
  /** The delay before the next try that the server requests, from Retry-After or the Status. */
  readonly retryAfterMs?: number;
  readonly details?: StatusDetails;
  /** The outcome of a write is unknown: it may have taken effect, or may still take effect. Never true for reads. */
  readonly maybeApplied: boolean;

  constructor(message: string, options: KubeApiErrorOptions) {
    super("KubeApi", message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = options.status;
    this.reason = options.reason ?? "";
    if (options.retryAfterMs !== undefined) this.retryAfterMs = options.retryAfterMs;
    if (options.details !== undefined) this.details = options.details;
    this.maybeApplied = options.maybeApplied ?? false;
  }
}

/** This process has lost the Lease, or cannot be sure to hold it: it must not act. */
export class LeadershipLostError extends OperatorError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("LeadershipLost", message, options);
  }
}

/** Whether an error is a KubeApiError with this HTTP status, for any reason. */
export function hasStatus(error: unknown, status: number): boolean {
  return error instanceof KubeApiError && error.status === status;
}

function hasReason(error: unknown, status: number, reason: string): boolean {
  return error instanceof KubeApiError && error.status === status && error.reason === reason;
}

/**
 * The object does not exist. A 404 without a Status (a proxy's page, a path that the server does not know) says nothing
 * about the object and does not count: an error is never read as absence.
 */
export const isNotFound = (error: unknown): boolean =>
  error instanceof KubeApiError &&
  hasReason(error, 404, "NotFound") &&
  (error.details === undefined || error.details.name !== undefined);

/** The resourceVersion or UID in the request differs from the object's. */
export const isConflict = (error: unknown): boolean => hasReason(error, 409, "Conflict");

export const isAlreadyExists = (error: unknown): boolean => hasReason(error, 409, "AlreadyExists");

export const isUnauthorized = (error: unknown): boolean => hasStatus(error, 401);

/** A token file or a plug-in gave no credentials, so no request was sent. */
export const hasNoCredentials = (error: unknown): boolean => hasReason(error, 0, NO_CREDENTIALS);

/** Refused by RBAC, admission or a quota. */
export const isForbidden = (error: unknown): boolean => hasStatus(error, 403);

/**
 * A ResourceQuota has no room. The API has no separate reason for it, only the text of the quota admission plug-in
 * (k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go, "exceeded quota").
 */
export const isQuotaExceeded = (error: unknown): boolean =>
  error instanceof KubeApiError && isForbidden(error) && error.message.includes("exceeded quota");

/** The namespace is being deleted: nothing new can be created in it. */
export const isNamespaceTerminating = (error: unknown): boolean =>
  error instanceof KubeApiError &&
  isForbidden(error) &&
  (error.details?.causes?.some((cause) => cause.reason === "NamespaceTerminating") === true ||
    error.message.includes("because it is being terminated"));

/** The resourceVersion or continue token is too old: list again. */
export const isGone = (error: unknown): boolean =>
  error instanceof KubeApiError && (error.status === 410 || error.reason === "Expired" || error.reason === "Gone");

/** The object is not valid (422). */
export const isInvalid = (error: unknown): boolean => hasStatus(error, 422);

/** The request is malformed (400). With strict validation, this includes unknown and duplicate fields. */
export const isBadRequest = (error: unknown): boolean => hasStatus(error, 400);

export const isTooManyRequests = (error: unknown): boolean => hasStatus(error, 429);

/** The server failed or was not reachable: the request itself may be valid. */
export const isServerFault = (error: unknown): boolean =>
  error instanceof KubeApiError && (error.status === 0 || error.status >= 500);

/** The answer is not the API server's: a proxy's page, or an unreadable stream. */
export const isMalformed = (error: unknown): boolean => error instanceof KubeApiError && error.reason === MALFORMED;

/** The answer exceeds its size bound. For a list, request fewer objects. */
export const isTooLarge = (error: unknown): boolean => error instanceof KubeApiError && error.reason === TOO_LARGE;

/** A write whose outcome is unknown. */
export const isMaybeApplied = (error: unknown): boolean => error instanceof KubeApiError && error.maybeApplied;

/** Prefixes of the API server's messages that contain names but no field, such as `Pod "x" is invalid: `. */
const PREAMBLES = [
  /^create \w+ \S+: /,
  /^\w+ is forbidden: /,
  /^\w+ "[^"]*" is (invalid|forbidden): /,
  /^Pod in version "v1" cannot be handled as a Pod: /,
  /^strict decoding error: /,
];

/**
 * Returns why the API server refused to create a Pod or its Secret, without their name. The name differs at each try,
 * and a changed message would lead to a status write at each try.
 */
export function apiErrorText(error: unknown, podName: string): string {
  const words = PREAMBLES.reduce((text, preamble) => text.replace(preamble, ""), errorText(error));
  return words.replaceAll(`"${podName}" `, "").replaceAll(`/${podName}`, "").replaceAll(podName, "it");
}

/** Returns the object that was read, or null if it does not exist. */
export async function orNull<T>(read: Promise<T>): Promise<T | null> {
  try {
    return await read;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}
