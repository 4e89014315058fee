import {
  ANNOTATION_END_MESSAGE,
  ANNOTATION_END_REASON,
  ANNOTATION_ENDED_AT,
  ANNOTATION_SLEEPS_SINCE,
  ANNOTATION_START_FAILURE,
  ANNOTATION_START_FAILURES,
  LABEL_PHASE,
} from "../api/names.ts";
import { asEndReason, END_REASONS, type EndReason } from "../api/reasons.ts";
import type { Pod } from "../kube/resource.ts";
import { templateHashOf } from "./own-pods.ts";

/** A finished Pod, as its annotations describe it. */
export interface FinishedPod {
  readonly pod: Pod;
  readonly reason: EndReason;
  readonly message: string;
  readonly failed: boolean;
  readonly finishedAtMs: number;
  readonly templateHash: string;
  /** Whether its container failed to start serving. */
  readonly startFailure: boolean;
  /** The number of consecutive failed starts of its template when it was marked; null: not recorded. */
  readonly startFailures: number | null;
}

/** Reads a finished Pod; null for any other. */
export function readFinished(pod: Pod): FinishedPod | null {
  return pod.metadata.labels?.[LABEL_PHASE] === "ended" ? readEnded(pod) : null;
}

/** The same, also for a Pod whose session sleeps: it records whether its last work item's program started. */
export function readEnded(pod: Pod): FinishedPod | null {
  const { labels, annotations = {}, creationTimestamp } = pod.metadata;
  const phase = labels?.[LABEL_PHASE];
  if (phase !== "ended" && phase !== "sleeping") return null;
  const reason = asEndReason(annotations[ANNOTATION_END_REASON]) ?? "Unknown";
  const endedAt = annotations[phase === "ended" ? ANNOTATION_ENDED_AT : ANNOTATION_SLEEPS_SINCE];
  const at = Date.parse(endedAt ?? creationTimestamp ?? "");
  return {
    pod,
    reason,
    message: annotations[ANNOTATION_END_MESSAGE] ?? "",
    failed: END_REASONS[reason].failed,
    finishedAtMs: Number.isNaN(at) ? 0 : at,
    templateHash: templateHashOf(pod),
    startFailure: annotations[ANNOTATION_START_FAILURE] === "true",
    startFailures: countOf(annotations[ANNOTATION_START_FAILURES]),
  };
}

function countOf(text = ""): number | null {
  return /^\d{1,6}$/.test(text) ? Number(text) : null;
}

/** Which finished Pods have been kept long enough, and when (wall clock) the next one expires. */
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

/** Consecutive failed starts of a template, as of `sinceMs` (the API server's clock). */
export interface FailedRow {
  readonly failures: number;
  /** Message of the last failure. */
  readonly message: string;
  readonly sinceMs: number;
}

/**
 * The consecutive failed starts that a template's finished Pods record, for the next process. Counting Pods would be
 * wrong: failed ones are kept longer than successful ones, some are deleted at once, and a session from before the
 * failures may end after them. So the newest Pod records the count at its marking. Null: there were no failures, or a
 * later success may have been recorded and deleted since.
 * @param keptMs how long a Pod that served is kept
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

/**
 * Whether a template's finished Pods show that its containers serve: one completed, and the newest records no failed
 * start.
 */
export function servedLately(finished: readonly FinishedPod[], hash: string): boolean {
  const newestFirst = ofTemplate(finished, hash);
  const newest = newestFirst.find(({ startFailures }) => startFailures !== null);
  return newest?.startFailures === 0 && newestFirst.some(({ reason }) => reason === "Completed");
}

/** Newest first; among Pods marked at the same instant, the highest count first. */
function ofTemplate(finished: readonly FinishedPod[], hash: string): FinishedPod[] {
  return finished
    .filter(({ templateHash }) => templateHash === hash)
    .sort((a, b) => b.finishedAtMs - a.finishedAtMs || (b.startFailures ?? 0) - (a.startFailures ?? 0));
}
