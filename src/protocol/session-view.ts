import type { EndReason } from "../api/reasons.ts";
import type { Clock } from "../core/clock.ts";
import type { Pod } from "../kube/resource.ts";
import type { Claim } from "./claim.ts";
import type { Outcome } from "./outcome.ts";

/**
 * A session as shown to people: names and times, never its credential. Times are in epoch milliseconds; null: unknown.
 */
export interface SessionView {
  readonly workId: string;
  readonly sessionId: string;
  readonly pod: string;
  readonly lease: "Worker" | "Operator";
  readonly phase: "running" | "stopping" | "sleeping" | "ended";
  /** By the Work API's clock. */
  readonly queuedAtMs: number | null;
  /** When the item was acknowledged, by the Work API's clock. */
  readonly claimedAtMs: number | null;
  /** By the operator's clock; unknown if an earlier process opened the session. */
  readonly openedAtMs: number | null;
  /** When the container started, by its node's clock, in whole seconds. */
  readonly startedAtMs: number | null;
  /** The first heartbeat, by the Work API's clock; with `lease: Operator`, by the operator's. */
  readonly beatAtMs: number | null;
  /**
   * When the claim was settled, by the operator's clock; before that, when the container ended, by its node's clock.
   */
  readonly stoppedAtMs: number | null;
  /** Why it ended, or is being ended; null while it continues. */
  readonly reason: EndReason | null;
  /** The reason in words. */
  readonly message: string;
  readonly failed: boolean;
  /** Until when it sleeps in its Pod, by the API server's clock. */
  readonly sleepsUntilMs?: number | null;
}

/** The phase of a session's claim, as `status.sessions` counts it. */
export function phaseOf(claim: Claim, pod: Pod | undefined): "running" | "stopping" {
  const { observed, record } = claim;
  const isEnding = observed.end !== null || observed.podGone || record.ending !== null;
  return isEnding || pod?.metadata.deletionTimestamp ? "stopping" : "running";
}

/** The view of a claimed session. */
export function liveView(claim: Claim, pod: Pod | undefined): SessionView {
  return {
    ...viewOf(claim),
    phase: phaseOf(claim, pod),
    stoppedAtMs: claim.observed.end?.finishedAtMs ?? null,
    reason: claim.record.ending?.why ?? claim.observed.end?.cause ?? null,
    message: claim.record.ending?.message ?? claim.observed.end?.message ?? "",
    failed: false,
  };
}

/** The view of a session whose claim is settled. */
export function endedView(claim: Claim, { reason, message, failed }: Outcome, clock: Clock): SessionView {
  return { ...viewOf(claim), phase: "ended", stoppedAtMs: clock.now(), reason, message, failed };
}

function viewOf(claim: Claim) {
  const { workId, sessionId, lease, queuedAt, acknowledgedAt } = claim.record.journal;
  return {
    workId,
    sessionId,
    pod: claim.name,
    lease,
    queuedAtMs: parsed(queuedAt),
    claimedAtMs: parsed(claim.record.acknowledgedAt ?? acknowledgedAt),
    openedAtMs: claim.record.openedAtMs,
    startedAtMs: claim.observed.startedAtMs,
    beatAtMs: claim.observed.firstBeatAtMs,
  };
}

function parsed(time: string | null): number | null {
  const ms = Date.parse(time ?? "");
  return Number.isNaN(ms) ? null : ms;
}
