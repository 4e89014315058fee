import {
  ANNOTATION_ASSIGNED_AT,
  ANNOTATION_DEADLINE,
  ANNOTATION_DEFAULT_CONTAINER,
  ANNOTATION_DO_NOT_DISRUPT,
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_ENDED_AT,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_ID,
  ANNOTATION_SLEEPS_SINCE,
  ANNOTATION_SLEEPS_UNTIL,
  ANNOTATION_START_FAILURE,
  ANNOTATION_START_FAILURES,
  ANNOTATION_TURN_CONTAINER,
  ANNOTATION_WORK_ID,
  LABEL_PHASE,
  LABEL_SESSION_ID,
  LABEL_WORK_ID,
  toLabelValue,
} from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import { isConflict, isNotFound, orNull } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { assignedAtMs, parkingOf } from "../pods/pod-gate.ts";
import { NO_DEADLINE_SECONDS } from "../pods/pod-render.ts";
import { readPodState } from "../pods/pod-state.ts";
import { sleepPatch } from "../pods/sleep-mark.ts";
import { endedTurn, hasOpenTurn, isAsleep, newestTurn, turnContainerId, turnName } from "../pods/turns.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteAssigning, noteDeadline, notePodVersion, noteTouched } from "../protocol/claim-record.ts";
import { type ClaimContext, STEP_BOUND } from "../protocol/context.ts";
import { stopPatienceMs } from "../protocol/facts.ts";
import type { Outcome } from "../protocol/outcome.ts";
import { ofClaim } from "../protocol/points.ts";
import type { Step } from "../protocol/step.ts";

/** Counts the touches of a Pod: any change of the Pod makes the kubelet check it immediately. */
const ANNOTATION_TOUCHES = "berth.dev/touches";

/**
 * Makes the API server forget who owns which field of the Pod, and record it no more (skipnonapplied.go). Of a Pod with
 * many turns, recording takes most of the time of each request.
 */
const UNTRACKED = { managedFields: [{}] } as const;

/**
 * The API server applies this patch faster than a merge patch that it validates and answers with the whole Pod. With 50
 * turns, that saves a quarter of the request.
 */
const FAST = { type: "strategic", fieldValidation: "Ignore", metadataOnly: true } as const;

/** Tries to patch a Pod with turns while its kubelet changes its status. */
const PATCH_TRIES = 5;

/**
 * Touches the Pod: one patch that assigns it to its session, and makes the kubelet check the Pod immediately. The
 * session of a waiting shell or program counts from the time in this patch.
 */
export async function touchPod(context: ClaimContext, claim: Claim, pod: Pod): Promise<void> {
  const isTurn = claim.turn > 0;
  // The field can only be lowered, so a lower value that another client set must stay. It counts from the Pod's start,
  // and a Pod with turns serves more work items later: its keeper reads the annotation instead.
  const current = pod.spec.activeDeadlineSeconds ?? NO_DEADLINE_SECONDS;
  const lastsSeconds = claim.record.deadlineSeconds ?? deadlineSeconds(context, isTurn ? null : pod);
  noteDeadline(claim, isTurn ? lastsSeconds : Math.min(current, lastsSeconds));
  const own = context.environment().spec.sessions?.template.metadata?.annotations ?? {};
  noteAssigning(claim, assignedAtMs(pod) ?? context.kube.now());
  const given = assignment(claim, pod);
  const annotations: Record<string, string | null> = {
    ...given.annotations,
    [ANNOTATION_TOUCHES]: String(claim.record.touches + 1),
  };
  if (isTurn) {
    annotations[ANNOTATION_DEADLINE] = String(Math.ceil((claim.record.assignedAtMs ?? 0) / SECOND_MS) + lastsSeconds);
    annotations[ANNOTATION_SLEEPS_SINCE] = null;
    annotations[ANNOTATION_SLEEPS_UNTIL] = null;
  }
  // Annotations about disruptions in the user's template win.
  if (own[ANNOTATION_SAFE_TO_EVICT] === undefined) annotations[ANNOTATION_SAFE_TO_EVICT] = "false";
  if (own[ANNOTATION_DO_NOT_DISRUPT] === undefined) annotations[ANNOTATION_DO_NOT_DISRUPT] = "true";
  const patch = {
    metadata: {
      ...UNTRACKED,
      uid: claim.record.journal.podUid,
      labels: { [LABEL_PHASE]: "running", ...given.labels },
      annotations,
    },
    ...(isTurn ? {} : { spec: { activeDeadlineSeconds: claim.record.deadlineSeconds } }),
  };
  const ref = { namespace: context.namespace, name: claim.name };
  const send = (version?: string) =>
    context.points.run("session.touch", ofClaim(claim, { touches: claim.record.touches + 1 }), () => {
      const metadata = { ...patch.metadata, ...(version && { resourceVersion: version }) };
      return context.kube.patch(PODS, ref, { ...patch, metadata }, FAST, STEP_BOUND);
    });
  if (isTurn) await touchTurn(context, claim, pod, send);
  else await send();
  noteTouched(claim, context.clock.monotonic(), true);
}

/** What a Pod says of the work item that it was given. */
function assignment({ turn, record: { journal, assignedAtMs } }: Claim, pod: Pod) {
  const { workId, sessionId, container } = journal;
  return {
    labels: { [LABEL_WORK_ID]: toLabelValue(workId), [LABEL_SESSION_ID]: toLabelValue(sessionId) },
    annotations: {
      ...{ [ANNOTATION_WORK_ID]: workId, [ANNOTATION_SESSION_ID]: sessionId },
      ...(parkingOf(pod) !== "Key" && { [ANNOTATION_ASSIGNED_AT]: new Date(assignedAtMs ?? 0).toISOString() }),
      ...(turn > 0 && {
        [ANNOTATION_DEFAULT_CONTAINER]: turnName(turn),
        [ANNOTATION_TURN_CONTAINER]: container ?? turnContainerId(pod, turn) ?? null,
      }),
    },
  };
}

/** The same for a woken Pod whose program has ended, if it was never assigned; otherwise nothing. */
function lateAssignment(claim: Claim, pod: Pod) {
  const isLate = isAsleep(pod) && claim.record.assignedAtMs !== null;
  return isLate ? assignment(claim, pod) : { labels: {}, annotations: {} };
}

/**
 * A woken Pod as it will be once it is assigned. Its line is sent before that (delivering.ts), so it may look asleep while
 * its program runs. Any other Pod stays unchanged.
 */
export function asAssigned({ kube, clock }: Pick<ClaimContext, "kube" | "clock">, claim: Claim, pod: Pod): Pod {
  const { turn, record } = claim;
  const isUnsent = record.delivery === "unsent" && record.unstartedMs === null;
  if (turn <= 1 || isUnsent || !isAsleep(pod) || endedTurn(pod) >= turn) return pod;
  // An earlier process sent the line at some time since it wrote the claim's Secret.
  const agoMs = clock.monotonic() - (claim.recordedMs ?? clock.monotonic());
  noteAssigning(claim, kube.now() - (Number.isFinite(agoMs) ? agoMs : 0));
  const { labels, annotations } = assignment(claim, pod);
  const metadata = {
    ...pod.metadata,
    labels: { ...pod.metadata.labels, ...labels, [LABEL_PHASE]: "running" },
    annotations: { ...pod.metadata.annotations, ...annotations } as Record<string, string>,
  };
  return { ...pod, metadata };
}

/**
 * Touches a Pod with turns. The patch names the resourceVersion (M): the Pod may sleep again, or serve another session's
 * claim, by the time a late patch arrives.
 * @throws KubeApiError a conflict, if the claimed turn is not the Pod's open one any more
 */
async function touchTurn(context: ClaimContext, claim: Claim, pod: Pod, send: (version?: string) => Promise<Pod>) {
  const ref = { namespace: context.namespace, name: claim.name };
  let version = claim.record.podVersion ?? pod.metadata.resourceVersion;
  for (let tries = 1; ; tries += 1) {
    try {
      notePodVersion(claim, (await send(version)).metadata.resourceVersion);
      return;
    } catch (error) {
      if (!isConflict(error) || tries === PATCH_TRIES) throw error;
      const live = await context.points.run("session.read-pod", ofClaim(claim), () => context.kube.get(PODS, ref));
      const isSame = live.metadata.uid === claim.record.journal.podUid && !live.metadata.deletionTimestamp;
      if (!isSame || !hasOpenTurn(live) || newestTurn(live) !== claim.turn) throw error;
      version = live.metadata.resourceVersion;
    }
  }
}

/**
 * The deadline that ends the Pod if no operator runs. It must not end before the operator would have deleted the Pod
 * itself. Kubernetes counts it from the Pod's start, so the parked time is added.
 * @param pod null: it counts from now
 */
function deadlineSeconds(context: ClaimContext, pod: Pod | null): number {
  const { maxDurationSeconds } = context.environment().spec.sessions ?? { maxDurationSeconds: 0 };
  const startedMs = Date.parse(pod?.status?.startTime ?? pod?.metadata.creationTimestamp ?? "");
  const ageSeconds = Number.isNaN(startedMs) ? 0 : Math.max(0, context.kube.now() - startedMs) / SECOND_MS;
  const { graceSeconds } = context.template();
  const patienceSeconds = Math.ceil(stopPatienceMs(graceSeconds * SECOND_MS, context.timing) / SECOND_MS);
  return Math.ceil(ageSeconds) + maxDurationSeconds + patienceSeconds + graceSeconds;
}

/**
 * Marks the Pod as sleeping, and its turn as ended (M: before the claim's Secret is deleted; the Pod would otherwise
 * look left behind after a crash, and be deleted with the session's files). A patch that assigns the Pod may still
 * arrive, and is then refused (M). Returns the live Pod; null: it can't sleep any more.
 * @param pod as the cache shows it
 */
export async function putToSleep(
  context: ClaimContext,
  claim: Claim,
  pod: Pod,
  start: StartMark & Pick<Outcome, "message">,
): Promise<Pod | null> {
  const { kube, points, namespace } = context;
  const ref = { namespace, name: claim.name };
  let seen = pod;
  for (let tries = 1; ; tries += 1) {
    const { uid, deletionTimestamp } = seen.metadata;
    if (uid !== claim.record.journal.podUid || deletionTimestamp) return null;
    // An earlier process marked it, and ended before it deleted the claim's Secret.
    if (endedTurn(seen) >= claim.turn) return seen;
    try {
      const slept = { sessionId: claim.record.journal.sessionId, endedTurn: claim.turn };
      const { metadata } = sleepPatch(seen, slept, context.environment(), kube.now());
      const given = lateAssignment(claim, seen);
      const labels = { ...given.labels, ...metadata.labels };
      const marks = {
        ...startMarks(start),
        [ANNOTATION_END_MESSAGE]: start.failed ? start.message.slice(0, MESSAGE_LENGTH) : null,
      };
      const annotations = { ...given.annotations, ...metadata.annotations, ...marks };
      const patch = { metadata: { ...metadata, labels, annotations } };
      const mark = () => kube.patch(PODS, ref, patch, { type: "merge" }, STEP_BOUND);
      return await points.run("session.sleep", ofClaim(claim, { turn: claim.turn }), mark);
    } catch (error) {
      if (isNotFound(error)) return null;
      if (!isConflict(error) || tries === PATCH_TRIES) throw error;
      const live = await orNull(points.run("session.read-pod", ofClaim(claim), () => kube.get(PODS, ref)));
      if (live === null) return null;
      seen = live;
    }
  }
}

/** Whether the live Pod is still in the state that the deletion was decided on. */
export function sameState(live: Pod, step: Step & { do: "delete-pod" }, turn: number): boolean {
  const state = readPodState(live, turn).is;
  // If the container has started in the meantime, the start did not fail. One that waits for its line runs anyway.
  const mustWait = step.why === "StartFailed" && parkingOf(live) === "Key";
  return mustWait ? state === "parked" || state === "preparing" : state !== "ended";
}

/** The longest message in an annotation, in characters: annotations are for people, so longer messages are cut. */
const MESSAGE_LENGTH = 512;

/** What a session's start shows about its template. */
export interface StartMark {
  /** The container ended before it served. */
  readonly failed: boolean;
  /** Starts of the template that have failed in a row so far; null: they are no longer counted. */
  readonly inARow: number | null;
}

/** The annotations of a start. Null removes those of an earlier start of the Pod. */
function startMarks({ failed, inARow }: StartMark) {
  return {
    [ANNOTATION_START_FAILURE]: failed ? "true" : null,
    [ANNOTATION_START_FAILURES]: inARow === null ? null : String(inARow),
  };
}

/** Marks the Pod of a settled session as finished: it no longer counts as capacity, and is kept for its logs. */
export async function markFinished(
  context: ClaimContext,
  claim: Claim,
  pod: Pod,
  outcome: Outcome,
  start: StartMark,
): Promise<void> {
  if (pod.metadata.deletionTimestamp) return;
  const finishedAt = new Date(context.kube.now()).toISOString();
  const given = lateAssignment(claim, pod);
  const patch = {
    metadata: {
      uid: pod.metadata.uid,
      labels: { ...given.labels, [LABEL_PHASE]: "ended" },
      annotations: {
        ...given.annotations,
        [ANNOTATION_END_REASON]: outcome.reason,
        [ANNOTATION_END_MESSAGE]: outcome.message.slice(0, MESSAGE_LENGTH),
        [ANNOTATION_ENDED_AT]: finishedAt,
        ...startMarks(start),
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

/**
 * Ends sidecars, which would continue to use the Pod's requests: a deadline that is due ends them and keeps their logs.
 */
function endSidecars(context: ClaimContext, pod: Pod): { spec?: { activeDeadlineSeconds: number } } {
  const running = pod.status?.containerStatuses?.some(({ state }) => state?.running) ?? false;
  const startedMs = Date.parse(pod.status?.startTime ?? "");
  if (!running || Number.isNaN(startedMs)) return {};
  const age = Math.max(0, Math.floor((context.kube.now() - startedMs) / SECOND_MS));
  const current = pod.spec.activeDeadlineSeconds;
  return current !== undefined && current <= age + 1 ? {} : { spec: { activeDeadlineSeconds: age + 1 } };
}
