import {
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_FINISHED_AT,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_START_FAILURE,
  LABEL_PHASE,
  LABEL_TEMPLATE_HASH,
} from "../api/names.ts";
import { asEndReason, END_REASONS, type EndReason } from "../api/reasons.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import type { Claim } from "./claim.ts";
import type { SessionContext } from "./context.ts";
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

/** Marks the Pod of a settled session: it is no capacity any more and is kept for its logs. */
export async function markFinished(
  context: SessionContext,
  claim: Claim,
  pod: Pod,
  outcome: Outcome,
  startFailure: boolean,
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
        ...(startFailure ? { [ANNOTATION_START_FAILURE]: "true" } : {}),
        [ANNOTATION_SAFE_TO_EVICT]: "true",
      },
    },
    ...endSidecars(context, pod),
  };
  try {
    await context.points.run("session.mark", { ...ofClaim(claim), asks: { reason: outcome.reason } }, () =>
      context.kube.patch(PODS, { namespace: context.namespace, name: pod.metadata.name ?? "" }, patch, {
        type: "merge",
      }),
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
  };
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

/** Start failures in a row of a template, oldest first, as its finished Pods tell them: the breaker's memory. */
export function startFailuresInARow(finished: readonly FinishedPod[], hash: string): FinishedPod[] {
  const newestFirst = finished
    .filter(({ templateHash }) => templateHash === hash)
    .sort((a, b) => b.finishedAtMs - a.finishedAtMs);
  const served = newestFirst.findIndex(({ startFailure }) => !startFailure);
  return (served < 0 ? newestFirst : newestFirst.slice(0, served)).reverse();
}
