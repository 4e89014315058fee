import { errorText, OperatorError } from "../core/errors.ts";

/** `reason` where what came is not an API server's answer; the API itself knows no such reason. */
export const MALFORMED = "MalformedAnswer";
/** `reason` where an answer was given up since it is longer than its bound; the API itself knows no such reason. */
export const TOO_LARGE = "AnswerTooLarge";

/** `reason` where nothing was sent, for want of credentials; the API itself knows no such reason. */
export const NO_CREDENTIALS = "NoCredentials";

/** One fault of a Status: which field, and what is wrong with it. */
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
  /** What the server asks to wait before the next try, from Retry-After or the Status. */
  readonly retryAfterMs?: number;
  readonly details?: StatusDetails;
  /** The outcome of a write is unknown: it may have taken effect, or may still do. Never true for reads. */
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

/** This process does not hold the Lease any more, or cannot be sure to: it must not act. */
export class LeadershipLostError extends OperatorError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("LeadershipLost", message, options);
  }
}

/** A status of an HTTP answer, whatever the reason; false for anything but a KubeApiError. */
export function hasStatus(error: unknown, status: number): boolean {
  return error instanceof KubeApiError && error.status === status;
}

function hasReason(error: unknown, status: number, reason: string): boolean {
  return error instanceof KubeApiError && error.status === status && error.reason === reason;
}

/**
 * The object does not exist. A 404 without a Status (a proxy's page, a path the server does not know) is no word about
 * the object and does not count: an error is never read as absence.
 */
export const isNotFound = (error: unknown): boolean =>
  error instanceof KubeApiError &&
  hasReason(error, 404, "NotFound") &&
  (error.details === undefined || error.details.name !== undefined);

/** The resourceVersion or UID of the request is not that of the object. */
export const isConflict = (error: unknown): boolean => hasReason(error, 409, "Conflict");

export const isAlreadyExists = (error: unknown): boolean => hasReason(error, 409, "AlreadyExists");

export const isUnauthorized = (error: unknown): boolean => hasStatus(error, 401);

/** A token's file or a plug-in gave none: the API server was not asked. */
export const hasNoCredentials = (error: unknown): boolean => hasReason(error, 0, NO_CREDENTIALS);

/** Refused by RBAC, by admission or by a quota. */
export const isForbidden = (error: unknown): boolean => hasStatus(error, 403);

/**
 * A ResourceQuota has no room. The API has no reason of its own for it, only the text of the quota admission plug-in
 * (k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go, "exceeded quota").
 */
export const isQuotaExceeded = (error: unknown): boolean =>
  error instanceof KubeApiError && isForbidden(error) && error.message.includes("exceeded quota");

/** The namespace is being deleted: nothing can be created in it any more. */
export const isNamespaceTerminating = (error: unknown): boolean =>
  error instanceof KubeApiError &&
  isForbidden(error) &&
  (error.details?.causes?.some((cause) => cause.reason === "NamespaceTerminating") === true ||
    error.message.includes("because it is being terminated"));

/** The resourceVersion or continue token is too old: list anew. */
export const isGone = (error: unknown): boolean =>
  error instanceof KubeApiError && (error.status === 410 || error.reason === "Expired" || error.reason === "Gone");

/** The object is not valid (422). */
export const isInvalid = (error: unknown): boolean => hasStatus(error, 422);

/** The request is malformed (400): with strict validation also for unknown and duplicate fields. */
export const isBadRequest = (error: unknown): boolean => hasStatus(error, 400);

export const isTooManyRequests = (error: unknown): boolean => hasStatus(error, 429);

/** The API server could not be reached, or broke off without an answer. */
export const isUnreachable = (error: unknown): boolean => hasStatus(error, 0);

/** The server itself failed or was not reached: nothing is wrong with the request. */
export const isServerFault = (error: unknown): boolean =>
  error instanceof KubeApiError && (error.status === 0 || error.status >= 500);

/** What came is not an API server's answer: a proxy's page, a stream that can not be read. */
export const isMalformed = (error: unknown): boolean => error instanceof KubeApiError && error.reason === MALFORMED;

/** The answer is longer than was to be read of it: in a list, ask for fewer objects. */
export const isTooLarge = (error: unknown): boolean => error instanceof KubeApiError && error.reason === TOO_LARGE;

/** A write whose outcome is unknown. */
export const isMaybeApplied = (error: unknown): boolean => error instanceof KubeApiError && error.maybeApplied;

/** What the API server says before it comes to the point; `Pod "x" is invalid: ` and the like name no field. */
const PREAMBLES = [
  /^create \w+ \S+: /,
  /^\w+ is forbidden: /,
  /^\w+ "[^"]*" is (invalid|forbidden): /,
  /^Pod in version "v1" cannot be handled as a Pod: /,
  /^strict decoding error: /,
];

/**
 * Why the API server refused to create a Pod or its Secret, without their name: it is another one at each try, and a
 * message that differs at each try is a status that is written at each try.
 */
export function apiErrorText(error: unknown, podName: string): string {
  const words = PREAMBLES.reduce((text, preamble) => text.replace(preamble, ""), errorText(error));
  return words.replaceAll(`"${podName}" `, "").replaceAll(`/${podName}`, "").replaceAll(podName, "it");
}

/** What a read found; null where there is nothing. */
export async function orNull<T>(read: Promise<T>): Promise<T | null> {
  try {
    return await read;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}
