import {
  ANNOTATION_DO_NOT_DISRUPT,
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_FINISHED_AT,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_ID,
  ANNOTATION_START_FAILURE,
  ANNOTATION_START_FAILURES,
  ANNOTATION_WORK_ID,
  LABEL_PHASE,
  LABEL_SESSION_ID,
  LABEL_WORK_ID,
  toLabelValue,
} from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { NO_DEADLINE_SECONDS } from "../pods/pod-render.ts";
import { readPodState } from "../pods/pod-state.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteDeadline, noteTouched } from "../protocol/claim-record.ts";
import { type ClaimContext, STEP_BOUND } from "../protocol/context.ts";
import { stopPatienceMs } from "../protocol/facts.ts";
import type { Outcome } from "../protocol/outcome.ts";
import { ofClaim } from "../protocol/points.ts";
import type { Step } from "../protocol/step.ts";

/** Counts the touches of a Pod: any change of it makes kubelet look at once. */
const ANNOTATION_TOUCHES = "berth.dev/touches";

/** Touches the Pod: one patch that tells everybody which session it runs now, and makes kubelet look at once. */
export async function touchPod(context: ClaimContext, claim: Claim, pod: Pod): Promise<void> {
  const { workId, sessionId } = claim.record.journal;
  // Whoever lowers it meanwhile has the last word: it may only ever be lowered.
  const current = pod.spec.activeDeadlineSeconds ?? NO_DEADLINE_SECONDS;
  noteDeadline(claim, Math.min(current, claim.record.deadlineSeconds ?? deadlineSeconds(context, pod)));
  const own = context.environment().spec.sessions?.template.metadata?.annotations ?? {};
  const annotations: Record<string, string> = {
    [ANNOTATION_WORK_ID]: workId,
    [ANNOTATION_SESSION_ID]: sessionId,
    [ANNOTATION_TOUCHES]: String(claim.record.touches + 1),
  };
  // What the user's template says of disruptions wins.
  if (own[ANNOTATION_SAFE_TO_EVICT] === undefined) annotations[ANNOTATION_SAFE_TO_EVICT] = "false";
  if (own[ANNOTATION_DO_NOT_DISRUPT] === undefined) annotations[ANNOTATION_DO_NOT_DISRUPT] = "true";
  const patch = {
    metadata: {
      uid: claim.record.journal.podUid,
      labels: {
        [LABEL_PHASE]: "assigned",
        [LABEL_WORK_ID]: toLabelValue(workId),
        [LABEL_SESSION_ID]: toLabelValue(sessionId),
      },
      annotations,
    },
    spec: { activeDeadlineSeconds: claim.record.deadlineSeconds },
  };
  await context.points.run("session.touch", ofClaim(claim, { touches: claim.record.touches + 1 }), () =>
    context.kube.patch(PODS, { namespace: context.namespace, name: claim.name }, patch, { type: "merge" }, STEP_BOUND),
  );
  context.metrics.touches.inc({ ...context.labels, touch: claim.record.touches === 0 ? "first" : "again" });
  noteTouched(claim, context.clock.monotonic());
}

/**
 * A bound that holds with the operator dead, and only then: not before the operator would have deleted the Pod itself. It
 * counts from the Pod's start, so the time parked is added.
 */
function deadlineSeconds(context: ClaimContext, pod: Pod): number {
  const { maxDurationSeconds } = context.environment().spec.sessions ?? { maxDurationSeconds: 0 };
  const startedMs = Date.parse(pod.status?.startTime ?? pod.metadata.creationTimestamp ?? "");
  const ageSeconds = Number.isNaN(startedMs) ? 0 : Math.max(0, context.kube.now() - startedMs) / SECOND_MS;
  const { graceSeconds } = context.template();
  const patienceSeconds = Math.ceil(stopPatienceMs(graceSeconds * SECOND_MS, context.timing) / SECOND_MS);
  return Math.ceil(ageSeconds) + maxDurationSeconds + patienceSeconds + graceSeconds;
}

/** Whether a live Pod still is in the state that a step was decided on. */
export function sameState(live: Pod, step: Step & { do: "delete-pod" }): boolean {
  const state = readPodState(live).is;
  // A Pod whose container has started meanwhile is not one that failed to start.
  return step.why === "StartFailed" ? state === "parked" || state === "preparing" : state !== "ended";
}

/** Annotations are for people: a message longer than this is cut. */
const MESSAGE_LENGTH = 512;

/** What a session's start said of its template. */
export interface StartMark {
  /** Its container did not get to serve. */
  readonly failed: boolean;
  /** Starts of its template that failed in a row by now; null: nobody counts them any more. */
  readonly inARow: number | null;
}

/** Marks the Pod of a settled session: it is no capacity any more and is kept for its logs. */
export async function markFinished(
  context: ClaimContext,
  claim: Claim,
  pod: Pod,
  outcome: Outcome,
  start: StartMark,
): Promise<void> {
  if (pod.metadata.deletionTimestamp) return;
  const finishedAt = new Date(context.kube.now()).toISOString();
  const patch = {
    metadata: {
      uid: pod.metadata.uid,
      labels: { [LABEL_PHASE]: "finished" },
      annotations: {
        [ANNOTATION_END_REASON]: outcome.reason,
        [ANNOTATION_END_MESSAGE]: outcome.message.slice(0, MESSAGE_LENGTH),
        [ANNOTATION_FINISHED_AT]: finishedAt,
        ...(start.failed ? { [ANNOTATION_START_FAILURE]: "true" } : {}),
        ...(start.inARow === null ? {} : { [ANNOTATION_START_FAILURES]: String(start.inARow) }),
        [ANNOTATION_SAFE_TO_EVICT]: "true",
      },
    },
    ...endSidecars(context, pod),
  };
  try {
    await context.points.run("session.mark", { ...ofClaim(claim), asks: { reason: outcome.reason } }, () =>
      context.kube.patch(
        PODS,
        { namespace: context.namespace, name: pod.metadata.name ?? "" },
        patch,
        { type: "merge" },
        STEP_BOUND,
      ),
    );
  } catch (error) {
    if (!isNotFound(error) && !isConflict(error)) throw error;
  }
}

/** A plain sidecar would run on and hold the Pod's requests: a deadline in the past ends it, and its logs stay. */
function endSidecars(context: ClaimContext, pod: Pod): { spec?: { activeDeadlineSeconds: number } } {
  const running = pod.status?.containerStatuses?.some(({ state }) => state?.running) ?? false;
  const startedMs = Date.parse(pod.status?.startTime ?? "");
  if (!running || Number.isNaN(startedMs)) return {};
  const age = Math.max(0, Math.floor((context.kube.now() - startedMs) / SECOND_MS));
  const current = pod.spec.activeDeadlineSeconds;
  return current !== undefined && current <= age + 1 ? {} : { spec: { activeDeadlineSeconds: age + 1 } };
}
