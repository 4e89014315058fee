import { backoffDelay, type Random } from "../core/backoff.ts";
import { errorText } from "../core/errors.ts";
import { unended } from "../core/text.ts";
import type { Timing } from "../core/timing.ts";
import {
  apiErrorText,
  isForbidden,
  isInvalid,
  isUnauthorized,
  KubeApiError,
  LeadershipLostError,
} from "../kube/errors.ts";
import { withoutItem } from "../queue/api-health.ts";
import { askedPauseMs, WorkApiError } from "../work/errors.ts";
import type { Claim } from "./claim.ts";
import { type FailingStep, STEPS, type StepInfo, type StepName } from "./tracked-steps.ts";

/** A claim's step that was not retried within this time after it was due is no longer needed. */
export const OVERDUE_MS = 60_000;

/**
 * Whether the failure is reported: immediately if only a person can fix it, otherwise once it has lasted long enough.
 */
export function isReported(
  failing: FailingStep,
  nowMs: number,
  { stepPatienceMs }: Pick<Timing, "stepPatienceMs">,
  overdueMs = OVERDUE_MS,
): boolean {
  if (nowMs > failing.untilMs + overdueMs) return false;
  return failing.isFinal || (failing.times > 1 && nowMs >= failing.sinceMs + stepPatienceMs);
}

/** One lost request must not count as a blocked claim. */
const FAILURES_TO_HOLD_UP = 3;

/** Whether a step that keeps failing blocks this claim. */
export function isHeldUp({ failing }: Readonly<Claim>): boolean {
  return failing !== null && [...failing.values()].some(({ times }) => times >= FAILURES_TO_HOLD_UP);
}

/** Whether a step has failed for so long that the claim gives up on it. */
export function isOutOfPatience(failing: FailingStep | undefined, nowMs: number, timing: Timing): boolean {
  return failing !== undefined && nowMs >= failing.sinceMs + timing.stepPatienceMs;
}

/** One failure of a step. */
export interface Failure {
  readonly error: unknown;
  /** The name of the Pod and Secret, which messages leave out since it differs at each try. */
  readonly name?: string;
  /** Replaces the error's message, and is reported immediately. */
  readonly message?: string | undefined;
  /** Retry immediately: the next try uses what this failure showed. */
  readonly atOnce?: boolean;
}

/** Each acknowledgement takes an item from the queue for seconds. The pauses of Environments differ by their polls. */
export const ACK_BACKOFF = { factor: 4, spread: 0 };

/** The record after another failure. Failures within one pause count as one: many claims may fail at the same time. */
export function afterFailure(
  before: FailingStep | undefined,
  step: StepName,
  failure: Failure,
  nowMs: number,
  { timing, random }: { readonly timing: Timing; readonly random: Random },
): FailingStep {
  const { error } = failure;
  const times = (before?.times ?? 0) + (before && nowMs < before.untilMs ? 0 : 1);
  const sinceMs = before?.sinceMs ?? nowMs;
  const askedMs = askedPauseMs(error, random) ?? (error instanceof KubeApiError ? (error.retryAfterMs ?? null) : null);
  const policy = { baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs, ...(step === "acknowledge" && ACK_BACKOFF) };
  const pauseMs = failure.atOnce ? 0 : backoffDelay(policy, times, random);
  // The last try is made when patience ends, just before the claim is given up.
  const lastMs = step === "acknowledge" ? nowMs : sinceMs + timing.stepPatienceMs;
  const dueMs = nowMs < lastMs ? Math.min(nowMs + pauseMs, lastMs) : nowMs + pauseMs;
  const untilMs = Math.max(dueMs, before?.untilMs ?? dueMs, nowMs + (askedMs ?? 0));
  const code = codeOf(error);
  const isSame = before?.code === code && failure.message === undefined;
  return {
    times,
    sinceMs,
    failedMs: nowMs,
    untilMs,
    isAsked: askedMs !== null,
    isFinal: failure.message !== undefined || isForbidden(error) || isInvalid(error),
    code,
    message: isSame ? before.message : (failure.message ?? messageOf(step, failure)),
  };
}

function codeOf(error: unknown): string {
  if (error instanceof KubeApiError) return `${error.status} ${error.reason}`;
  if (error instanceof WorkApiError) return `${error.kind} ${error.status ?? ""}`;
  return error instanceof Error ? error.name : "";
}

function messageOf(step: StepName, { error, name = "" }: Failure): string {
  const { effect, permission }: StepInfo = STEPS[step];
  const words = unended(withoutItem(name === "" ? errorText(error) : apiErrorText(error, name)));
  const said = words === "" ? effect : `${effect}: ${words}`;
  if (!(error instanceof KubeApiError)) return said;
  if (isForbidden(error) || isUnauthorized(error)) {
    return permission === null ? said : `${said}; give the operator permission to ${permission}`;
  }
  return `${said}; fix what refuses it (an admission webhook, a quota, the API server)`;
}

/** Whether an error counts as a failure of the step, and not as this process losing its lease or shutting down. */
export function isStepFailure(error: unknown): boolean {
  if (error instanceof LeadershipLostError) return false;
  return error instanceof WorkApiError ? error.kind !== "aborted" : true;
}
