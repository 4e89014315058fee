import {
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_FINISHED_AT,
  ANNOTATION_START_FAILURE,
  ANNOTATION_START_FAILURES,
  LABEL_PHASE,
  LABEL_TEMPLATE_HASH,
} from "../api/names.ts";
import { asEndReason, END_REASONS, type EndReason } from "../api/reasons.ts";
import type { Pod } from "../kube/resource.ts";

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
