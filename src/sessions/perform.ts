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
import { errorText } from "../core/errors.ts";
import { desiredTtlSeconds } from "../core/timing.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { PODS, type Pod, SECRETS } from "../kube/resource.ts";
import { NO_DEADLINE_SECONDS } from "../pods/pod-render.ts";
import { readPodState } from "../pods/pod-state.ts";
import type { Claim, ItemView } from "../protocol/claim.ts";
import { type SessionContext, STEP_BOUND } from "../protocol/context.ts";
import { stopPatienceMs } from "../protocol/facts.ts";
import { openingPatch, readJournal, storedCredential } from "../protocol/journal.ts";
import { type HeldLease, type Lease, leaseOf } from "../protocol/lease.ts";
import type { Outcome } from "../protocol/outcome.ts";
import { beatTold, ofClaim, type SessionPoint } from "../protocol/points.ts";
import type { Step } from "../protocol/step.ts";
import type { Answer } from "../work/client.ts";
import type { HeartbeatOutcome } from "../work/types.ts";

const SECOND_MS = 1_000;

/** Keeps in mind that our acknowledgement took effect, or that it can't be told whose it was. */
export function own(context: SessionContext, claim: Claim, { acknowledgedAt, late }: Step & { do: "own" }): void {
  const { points, metrics, labels, clock, logger } = context;
  points.note(late ? "session.doubt" : "session.own", ofClaim(claim), { acknowledgedAt });
  claim.acknowledgedAt = acknowledgedAt;
  claim.ackedMs = claim.item?.askedMs ?? clock.monotonic();
  claim.lateAck = late ?? false;
  claim.memory = { is: "none" };
  // What is beaten already is most likely another client's.
  const isBeaten = late && claim.item?.state === "active";
  if (!isBeaten) metrics.acks.inc({ ...labels, result: late ? "late-effect" : "found" });
  if (!late) return;
  logger.warn({ workId: claim.journal.workId, acknowledgedAt }, "a work item was acknowledged late: it is not opened");
}

/** Counts the touches of a Pod: any change of it makes kubelet look at once. */
const ANNOTATION_TOUCHES = "berth.dev/touches";

/**
 * Gives the Secret the key that the container waits for, and makes the acknowledgement durable in the same patch.
 * The slot stays ours only while nobody changed the Secret: its resourceVersion says so.
 */
export async function openSecret(context: SessionContext, claim: Claim, acknowledgedAt: string): Promise<void> {
  const ref = { namespace: context.namespace, name: claim.name };
  const credential = claim.credential ?? (await rereadCredential(context, claim));
  claim.credential = null;
  if (credential === null) return;
  const patch = openingPatch(
    { uid: claim.secretUid, resourceVersion: claim.secretVersion },
    credential,
    acknowledgedAt,
  );
  claim.openingSent = true;
  try {
    const opened = await context.points.run("session.open", ofClaim(claim, { acknowledgedAt }), () =>
      context.kube.patch(SECRETS, ref, patch, { type: "merge" }, STEP_BOUND),
    );
    claim.secretVersion = opened.metadata.resourceVersion ?? claim.secretVersion;
  } catch (error) {
    if (isConflict(error) || isNotFound(error)) throw new StaleClaimError();
    throw error;
  }
}

/** The credential from the Secret; null when an earlier patch of ours, whose answer was lost, has opened it already. */
async function rereadCredential(context: SessionContext, claim: Claim): Promise<string | null> {
  const ref = { namespace: context.namespace, name: claim.name };
  const secret = await context.points
    .run(
      "session.read-credential",
      ofClaim(claim),
      () => context.kube.get(SECRETS, ref),
      (read) => ({ opened: readJournal(read)?.opened ?? false }),
    )
    .catch((error) => {
      throw isNotFound(error) ? new StaleClaimError() : error;
    });
  if (secret.metadata.uid !== claim.secretUid) throw new StaleClaimError();
  claim.secretVersion = secret.metadata.resourceVersion ?? claim.secretVersion;
  return readJournal(secret)?.opened ? null : storedCredential(secret);
}

/** The Secret is not the one that this claim wrote: somebody else has the slot, or had it. */
export class StaleClaimError extends Error {
  constructor() {
    super("the claim's Secret was changed or replaced by somebody else");
    this.name = "StaleClaimError";
  }
}

/** Touches the Pod: one patch that tells everybody which session it runs now, and makes kubelet look at once. */
export async function touchPod(context: SessionContext, claim: Claim, pod: Pod): Promise<void> {
  const { workId, sessionId } = claim.journal;
  // Whoever lowers it meanwhile has the last word: it may only ever be lowered.
  const current = pod.spec.activeDeadlineSeconds ?? NO_DEADLINE_SECONDS;
  claim.deadlineSeconds = Math.min(current, claim.deadlineSeconds ?? deadlineSeconds(context, pod));
  const own = context.environment().spec.sessions?.template.metadata?.annotations ?? {};
  const annotations: Record<string, string> = {
    [ANNOTATION_WORK_ID]: workId,
    [ANNOTATION_SESSION_ID]: sessionId,
    [ANNOTATION_TOUCHES]: String(claim.touches + 1),
  };
  // What the user's template says of disruptions wins.
  if (own[ANNOTATION_SAFE_TO_EVICT] === undefined) annotations[ANNOTATION_SAFE_TO_EVICT] = "false";
  if (own[ANNOTATION_DO_NOT_DISRUPT] === undefined) annotations[ANNOTATION_DO_NOT_DISRUPT] = "true";
  const patch = {
    metadata: {
      uid: claim.journal.podUid,
      labels: {
        [LABEL_PHASE]: "assigned",
        [LABEL_WORK_ID]: toLabelValue(workId),
        [LABEL_SESSION_ID]: toLabelValue(sessionId),
      },
      annotations,
    },
    spec: { activeDeadlineSeconds: claim.deadlineSeconds },
  };
  await context.points.run("session.touch", ofClaim(claim, { touches: claim.touches + 1 }), () =>
    context.kube.patch(PODS, { namespace: context.namespace, name: claim.name }, patch, { type: "merge" }, STEP_BOUND),
  );
  context.metrics.touches.inc({ ...context.labels, touch: claim.touches === 0 ? "first" : "again" });
  claim.touches += 1;
  claim.touchedMs = context.clock.monotonic();
}

/**
 * A bound that holds with the operator dead, and only then: not before the operator would have deleted the Pod itself. It
 * counts from the Pod's start, so the time parked is added.
 */
function deadlineSeconds(context: SessionContext, pod: Pod): number {
  const { maxDurationSeconds } = context.environment().spec.sessions ?? { maxDurationSeconds: 0 };
  const startedMs = Date.parse(pod.status?.startTime ?? pod.metadata.creationTimestamp ?? "");
  const ageSeconds = Number.isNaN(startedMs) ? 0 : Math.max(0, context.kube.now() - startedMs) / SECOND_MS;
  const { graceSeconds } = context.template();
  const patienceSeconds = Math.ceil(stopPatienceMs(graceSeconds * SECOND_MS, context.timing) / SECOND_MS);
  return Math.ceil(ageSeconds) + maxDurationSeconds + patienceSeconds + graceSeconds;
}

/** Takes the lease with a heartbeat of our own, against the value last seen. What comes out is in `claim.memory`. */
export async function fence(context: SessionContext, claim: Claim, expected: string): Promise<boolean> {
  claim.memory = { is: "none" };
  const answer = await beat(context, claim, "session.fence", expected);
  if (answer.value.kind === "refused") return refused(context, claim);
  const { beat: beaten } = answer.value;
  if (beaten.state !== "active" || !beaten.lease_extended) return refused(context, claim);
  claim.memory = {
    is: "fenced",
    beatSentMs: answer.sentAtMs,
    beatSentWallMs: answer.sentAtWallMs,
    ttlMs: beaten.ttl_seconds * SECOND_MS,
    value: beaten.last_heartbeat,
  };
  return true;
}

/**
 * lease: Operator: takes the lease, to keep it. What comes out is in `claim.lease`. A refusal loses it to somebody else
 * where the container runs already; before that the item is looked at again.
 */
export async function takeLease(context: SessionContext, claim: Claim, expected: string): Promise<void> {
  claim.memory = { is: "none" };
  claim.item = null;
  const answer = await beat(context, claim, "session.take", expected, desiredTtlSeconds(context.timing));
  const taken =
    answer.value.kind === "refused" ? null : leaseOf(answer.value.beat, answer.sentAtMs, answer.sentAtWallMs);
  if (taken) claim.lease = taken;
  else if (claim.journal.opened) claim.lease = lostToOthers(context, "its value moved while nobody of ours beat it");
  else refused(context, claim);
}

/** Shorter than a lease for work, long enough for any server to take it for one; it gives what it gives. */
const SHORTEST_TTL_SECONDS = 10;

/**
 * A last beat of a lease that is let go: who is to run the item next need not wait for the whole of it. A courtesy, sent
 * once: without it the lease lapses as it is. Never throws.
 */
export async function shortenLease(context: SessionContext, claim: Claim, { echo, ttlMs }: HeldLease): Promise<void> {
  try {
    const answer = await beat(context, claim, "session.shorten", echo, SHORTEST_TTL_SECONDS);
    if (answer.value.kind !== "beat") return;
    const { state, lease_extended: extended, ttl_seconds: ttlSeconds } = answer.value.beat;
    const surely = state === "active" && extended ? { beatSentWallMs: answer.sentAtWallMs } : {};
    claim.memory = { is: "fenced", beatSentMs: answer.sentAtMs, ...surely, ttlMs: ttlSeconds * SECOND_MS };
  } catch (error) {
    // It may have landed, for as long as the server gave before.
    claim.memory = { is: "fenced", beatSentMs: context.clock.monotonic(), ttlMs };
    context.logger.info({ workId: claim.journal.workId, error: errorText(error) }, "a lease could not be shortened");
  }
}

/** A lease that is somebody else's: nothing of ours keeps it alive. */
export function lostToOthers(context: SessionContext, message: string): Lease {
  return { is: "lost", by: "refusal", message, lapsedMs: context.clock.monotonic() };
}

async function beat(
  context: SessionContext,
  claim: Claim,
  point: SessionPoint,
  expected: string,
  ttlSeconds?: number,
): Promise<Answer<HeartbeatOutcome>> {
  const { api, workId } = claim.journal;
  const desired = ttlSeconds === undefined ? {} : { desiredTtlSeconds: ttlSeconds };
  const send = (value: string) => {
    context.guard();
    const request = () =>
      context.judged("heartbeat", claim.journal, () =>
        context.work(api).heartbeat(workId, { expected: value, ...desired }),
      );
    return context.points.run(point, ofClaim(claim, { expected: value }), request, beatTold);
  };
  const first = await send(expected);
  if (first.value.kind !== "refused") return first;
  // The list and the heartbeat may write one instant in two ways; the echo must be the server's own, byte for byte.
  const current = first.value.current?.last_heartbeat;
  if (!current || current === expected || Date.parse(current) !== Date.parse(expected)) return first;
  return await send(current);
}

function refused(context: SessionContext, claim: Claim): false {
  claim.memory = { is: "refused", atMs: context.clock.monotonic() };
  return false;
}

/** Stops the item. A forced one is over at once; 409 says that it was already. */
export async function stopItem(context: SessionContext, claim: Claim, force: boolean): Promise<void> {
  context.guard();
  const sentMs = context.clock.monotonic();
  const { api, workId } = claim.journal;
  await context.points.run("session.stop", ofClaim(claim, { force }), () =>
    context.judged("stop", claim.journal, () => context.work(api).stop(workId, { force })),
  );
  const seen: ItemView = claim.item ?? {
    state: "stopped",
    acknowledgedAt: claim.acknowledgedAt,
    latestHeartbeatAt: null,
    startedAt: null,
    askedMs: sentMs,
  };
  claim.item = { ...seen, state: force ? "stopped" : "stopping", askedMs: Math.max(seen.askedMs, sentMs) };
}

/**
 * Deletes a claim's Secret as it was last seen. Gone already is fine; changed by somebody else is not.
 * @param because in words, for a trace
 */
export async function dropSecret(
  { kube, points, namespace }: SessionContext,
  claim: Claim,
  point: "claim.drop" | "session.drop" | "session.settled",
  because: string,
): Promise<void> {
  const asSeen = { uid: claim.secretUid, resourceVersion: claim.secretVersion };
  try {
    await points.run(point, ofClaim(claim, { because }), () =>
      kube.delete(SECRETS, { namespace, name: claim.name }, asSeen, STEP_BOUND),
    );
  } catch (error) {
    if (isNotFound(error)) return;
    if (isConflict(error)) throw new StaleClaimError();
    throw error;
  }
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
  context: SessionContext,
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
function endSidecars(context: SessionContext, pod: Pod): { spec?: { activeDeadlineSeconds: number } } {
  const running = pod.status?.containerStatuses?.some(({ state }) => state?.running) ?? false;
  const startedMs = Date.parse(pod.status?.startTime ?? "");
  if (!running || Number.isNaN(startedMs)) return {};
  const age = Math.max(0, Math.floor((context.kube.now() - startedMs) / SECOND_MS));
  const current = pod.spec.activeDeadlineSeconds;
  return current !== undefined && current <= age + 1 ? {} : { spec: { activeDeadlineSeconds: age + 1 } };
}
