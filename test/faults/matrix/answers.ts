import { ApiError } from "../../../simulator/errors.ts";
import { json, type Reply } from "../../../simulator/http.ts";
import { KubeApiError } from "../../../src/kube/errors.ts";
import type { KubeRequest } from "../../sessions/loops/kube.ts";

/** The answer to each request while the fault lasts; `lost`: the request takes effect, and its answer never arrives. */
export const KUBE_ANSWERS = ["400", "401", "403", "404", "409", "422", "429", "500", "503", "none", "lost"] as const;
export const WORK_ANSWERS = [
  "400",
  "401",
  "403",
  "404",
  "409",
  "412",
  "429",
  "500",
  "503",
  "slow",
  "none",
  "lost",
] as const;
export type KubeAnswer = (typeof KUBE_ANSWERS)[number];
export type WorkAnswer = (typeof WORK_ANSWERS)[number];

/** The message of every refusal here. */
export const SERVERS_WORDS = "refused by the matrix";

/** A request that is never answered; no history lasts this long. */
export const NEVER_MS = 1e12;

const KUBE_REASONS: Readonly<Record<string, string>> = {
  "400": "BadRequest",
  "401": "Unauthorized",
  "403": "Forbidden",
  // A proxy's page, or a path that the server does not know; it says nothing about the object.
  "404": "",
  "409": "Conflict",
  "422": "Invalid",
  "429": "TooManyRequests",
  "500": "InternalError",
  "503": "ServiceUnavailable",
};

/** As the API server's priority and fairness sends it. */
const RETRY_AFTER_MS = 1_000;

/** A refusal by the API server. */
export function kubeRefusal(answer: KubeAnswer, { verb, plural }: KubeRequest): KubeApiError {
  const status = Number(answer);
  const isWrite = verb !== "get" && verb !== "list" && verb !== "watch";
  return new KubeApiError(`${verb} ${plural}: ${SERVERS_WORDS} (${answer})`, {
    status,
    reason: KUBE_REASONS[answer] ?? "",
    ...(status === 429 ? { retryAfterMs: RETRY_AFTER_MS } : {}),
    maybeApplied: isWrite && status >= 500,
  });
}

const WORK_TYPES: Readonly<Record<string, string>> = {
  "400": "invalid_request_error",
  "401": "authentication_error",
  "403": "permission_error",
  "404": "not_found_error",
  "409": "invalid_request_error",
  "412": "invalid_request_error",
  "429": "rate_limit_error",
  "500": "api_error",
  "503": "overloaded_error",
};

/** A refusal by the Work API. */
export function workRefusal(answer: WorkAnswer): Reply {
  const status = Number(answer);
  return json(status, new ApiError(status, WORK_TYPES[answer] ?? "api_error", SERVERS_WORDS).body);
}

/**
 * How long a slow Work API delays a request, and then its answer. The operator gives up calls of the protocol before
 * the answer comes.
 */
export function slowMs(call: string): { readonly requestMs: number; readonly answerMs: number } {
  return call === "poll" || call === "stats" ? { requestMs: 0, answerMs: 5_000 } : { requestMs: 700, answerMs: 1_300 };
}
