import { END_REASONS, type EndReason } from "../api/reasons.ts";
import type { PodState } from "../pods/pod-state.ts";
import type { Claim } from "./claim.ts";
import { LEFT_UNBEATEN } from "./first-heartbeat.ts";

/**
 * How a session ended that was acknowledged but never opened: its item was stopped, or returned to the queue because
 * its Pod was lost. Null: the session continues elsewhere, so this Environment doesn't report an end.
 * @param because why the item is no longer ours
 * @param draining the Environment is being deleted
 */
export function unopenedOutcome(
  claim: Readonly<Claim>,
  because: string,
  pod: PodState | { readonly is: "gone" },
  draining: boolean,
): Outcome | null {
  const isStopped = because === "stopped";
  if (!isStopped && because !== "queued") return null;
  if (claim.observed.end !== null)
    return outcome(claim.observed.end.cause, `${claim.observed.end.message}; ${NOT_OPENED}`);
  if (pod.is === "gone") return outcome("PodDeleted", `the Pod was deleted; ${NOT_OPENED}`);
  if (!isStopped) return null;
  if (claim.observed.stoppingSinceMs !== null || !heldLease(claim)) {
    return outcome("StoppedByUser", `the work item was stopped; ${NOT_OPENED}`);
  }
  if (claim.record.gone) return outcome("StartFailed", `a client deleted the claim's Secret; ${NOT_OPENED}`);
  if (draining) return outcome("EnvironmentDeleted", `the Environment was deleted; ${NOT_OPENED}`);
  const said = pod.is === "preparing" && pod.problem ? `: ${pod.problem.reason}: ${pod.problem.message}` : "";
  return outcome("StartFailed", `the Pod was no longer ready${said}; ${NOT_OPENED}`);
}

const NOT_OPENED = "the session had not started";

/** Whether this process held the lease, so that the stop was its own. */
function heldLease({ lease: { memory, own: lease } }: Readonly<Claim>): boolean {
  return memory.is === "fenced" || lease !== null;
}

function outcome(reason: EndReason, message: string): Outcome {
  return { reason, message, failed: END_REASONS[reason].failed };
}

/** How a session ended: a reason from the closed set, and a message for people. */
export interface Outcome {
  readonly reason: EndReason;
  readonly message: string;
  readonly failed: boolean;
}

/** How the session of a settled claim ended. Berth's own decision comes first, since it caused the container's end. */
export function outcomeOf(claim: Claim): Outcome {
  const reason = reasonOf(claim);
  const message =
    claim.record.ending?.message ?? (reason === "NoFirstBeat" ? LEFT_UNBEATEN : claim.observed.end?.message) ?? "";
  return { reason, message, failed: END_REASONS[reason].failed };
}

function reasonOf(claim: Claim): EndReason {
  if (claim.record.ending) return claim.record.ending.why;
  if (claim.record.journal.use === "refusal") return "CredentialMissing";
  if (claim.observed.end?.cause === "Completed" && claim.lease.neverBeaten) return "NoFirstBeat";
  return claim.observed.end?.cause ?? "Unknown";
}
