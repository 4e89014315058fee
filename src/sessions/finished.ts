import {
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_FINISHED_AT,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_START_FAILURE,
  ANNOTATION_START_FAILURES,
  LABEL_PHASE,
  LABEL_TEMPLATE_HASH,
} from "../api/names.ts";
import { asEndReason, END_REASONS, type EndReason } from "../api/reasons.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import type { Claim } from "./claim.ts";
import type { SessionContext } from "./context.ts";
import { STEP_BOUND } from "./perform.ts";
import { ofClaim } from "./points.ts";

const SECOND_MS = 1_000;

/** Annotations are for people: a message longer than this is cut. */
const MESSAGE_LENGTH = 512;

/** How a session ended, in one word of the closed set and in words for a person. */
export interface Outcome {
  readonly reason: EndReason;
  readonly message: string;
  readonly failed: boolean;
}

/** What Berth decided comes before what the container's end looked like: it caused it. */
export function outcomeOf(claim: Claim): Outcome {
  const reason = reasonOf(claim);
  const message = claim.ending?.message ?? (reason === "NoFirstBeat" ? LEFT_UNBEATEN : claim.end?.message) ?? "";
  return { reason, message, failed: END_REASONS[reason].failed };
}

const LEFT_UNBEATEN =
  "the container ended with exit code 0 and never sent a heartbeat; a program that does not beat by itself needs lease: Operator";

function reasonOf(claim: Claim): EndReason {
  if (claim.journal.use === "refusal") return "CredentialMissing";
  if (claim.ending) return claim.ending.why;
  if (claim.end?.cause === "Completed" && claim.neverBeaten) return "NoFirstBeat";
  return claim.end?.cause ?? "Unknown";
}

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

/** A finished Pod as its annotations tell it. */
export interface FinishedPod {
  readonly pod: Pod;
  readonly reason: EndReason;
  readonly message: string;
  readonly failed: boolean;
  readonly finishedAtMs: number;
  readonly templateHash: string;
  /** Its container did not get to serve: what the breaker counts. */
  readonly startFailure: boolean;
  /** Starts of its template that had failed in a row when it was marked; null: it does not say. */
  readonly startFailures: number | null;
}

/** Reads a finished Pod; null for any other. */
export function readFinished(pod: Pod): FinishedPod | null {
  if (pod.metadata.labels?.[LABEL_PHASE] !== "finished") return null;
  const annotations = pod.metadata.annotations ?? {};
  const reason = asEndReason(annotations[ANNOTATION_END_REASON]) ?? "Unknown";
  const at = Date.parse(annotations[ANNOTATION_FINISHED_AT] ?? pod.metadata.creationTimestamp ?? "");
  return {
    pod,
    reason,
    message: annotations[ANNOTATION_END_MESSAGE] ?? "",
    failed: END_REASONS[reason].failed,
    finishedAtMs: Number.isNaN(at) ? 0 : at,
    templateHash: pod.metadata.labels[LABEL_TEMPLATE_HASH] ?? "",
    startFailure: annotations[ANNOTATION_START_FAILURE] === "true",
    startFailures: countOf(annotations[ANNOTATION_START_FAILURES]),
  };
}

function countOf(text = ""): number | null {
  return /^\d{1,6}$/.test(text) ? Number(text) : null;
}

/** Which finished Pods have been kept long enough, and when (wall clock) the next one will have been. */
export function expiredFinished(
  finished: readonly FinishedPod[],
  nowMs: number,
  keep: { finishedMs: number; failedMs: number; limit: number },
): { expired: FinishedPod[]; nextAtMs: number | null } {
  const endOf = ({ failed, finishedAtMs }: FinishedPod) => finishedAtMs + (failed ? keep.failedMs : keep.finishedMs);
  const newestFirst = [...finished].sort((a, b) => b.finishedAtMs - a.finishedAtMs);
  const expired = newestFirst.filter((pod, rank) => rank >= keep.limit || endOf(pod) <= nowMs);
  const next = Math.min(...newestFirst.filter((pod) => !expired.includes(pod)).map(endOf));
  return { expired, nextAtMs: Number.isFinite(next) ? next : null };
}

/** Starts of a template that failed in a row, as of `sinceMs` (the API server's clock). */
export interface FailedRow {
  readonly failures: number;
  /** Of the last of them. */
  readonly message: string;
  readonly sinceMs: number;
}

/**
 * The row of failed starts that a template's finished Pods tell of: the breaker's memory. Counting them would not do: those
 * that failed are kept for longer than those that served in between, some of them are deleted at once, and a session of
 * before the row may end after it. So the newest tells what was known when it was marked. Null: there was no row, or one that
 * served since may have come and gone.
 * @param keptMs how long a Pod that served is to be seen
 */
export function failedRow(
  finished: readonly FinishedPod[],
  hash: string,
  { nowMs, keptMs }: { nowMs: number; keptMs: number },
): FailedRow | null {
  const newestFirst = ofTemplate(finished, hash);
  const newest = newestFirst.find(({ startFailures }) => startFailures !== null);
  if (!newest?.startFailures || nowMs >= newest.finishedAtMs + keptMs) return null;
  const message = newestFirst.find(({ startFailure }) => startFailure)?.message ?? "";
  return { failures: newest.startFailures, message, sinceMs: newest.finishedAtMs };
}

/** Whether a template's finished Pods say that its containers serve: one did, and the newest knew of no failed start. */
export function servedLately(finished: readonly FinishedPod[], hash: string): boolean {
  const newestFirst = ofTemplate(finished, hash);
  const newest = newestFirst.find(({ startFailures }) => startFailures !== null);
  return newest?.startFailures === 0 && newestFirst.some(({ reason }) => reason === "Completed");
}

/** The newest first; of those that were marked in one instant the longest row. */
function ofTemplate(finished: readonly FinishedPod[], hash: string): FinishedPod[] {
  return finished
    .filter(({ templateHash }) => templateHash === hash)
    .sort((a, b) => b.finishedAtMs - a.finishedAtMs || (b.startFailures ?? 0) - (a.startFailures ?? 0));
}
