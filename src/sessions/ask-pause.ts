import type { Timing } from "../core/timing.ts";
import type { Claim } from "../protocol/claim.ts";
import type { Facts } from "../protocol/facts.ts";
import { leaseEndMs } from "../protocol/lease.ts";
import type { Step } from "../protocol/step.ts";
import { type FailingByStep, type FailingStep, STEPS, type StepName } from "../protocol/tracked-steps.ts";

/** How late a timer can fire on a busy machine. */
const TIMER_LATENESS_MS = 500;

/** Steps that send a request to the Work API. */
const WORK_API_STEPS: ReadonlySet<Step["do"]> = new Set(["look", "take", "fence", "stop"]);

export function asks(step: Step): boolean {
  return WORK_API_STEPS.has(step.do);
}

/** The name under which this step's failures are tracked; null: the step sends no request. */
export function stepNameOf({ do: name }: Step): StepName | null {
  return Object.hasOwn(STEPS, name) ? (name as StepName) : null;
}

/**
 * Until when (monotonic) a failure holds this step back. A failed request to the Work API holds back all requests to it
 * for as long as the server asked, except for one try that can still land in time. A later try is safe, since each step
 * is decided again and no stop is sent without the lease. But it may come too late to stop the item, or to start the
 * session.
 */
export function heldBackUntilMs(facts: Facts, step: Step): number {
  const { failing } = facts.claim;
  const name = stepNameOf(step);
  if (failing === null || name === null) return Number.NEGATIVE_INFINITY;
  if (!asks(step)) return failing.get(name)?.untilMs ?? Number.NEGATIVE_INFINITY;
  const request = lastFailedRequest(failing);
  if (request === null) return Number.NEGATIVE_INFINITY;
  const lastMs = lastChanceMs(facts, step, request);
  return lastMs > request.failedMs ? Math.min(request.untilMs, lastMs) : request.untilMs;
}

/** The most recent failure of a request to the Work API. */
function lastFailedRequest(failing: FailingByStep): FailingStep | null {
  let last: FailingStep | null = null;
  for (const [step, each] of failing) {
    if (WORK_API_STEPS.has(step as Step["do"]) && (last === null || each.failedMs >= last.failedMs)) last = each;
  }
  return last;
}

/** The key or the address changed: failed steps are retried immediately, unless the server asked for a pause. */
export function forgetPauses({ failing }: Claim): void {
  for (const [step, each] of failing ?? []) if (!each.isAsked) failing?.set(step, { ...each, untilMs: each.failedMs });
}

function lastChanceMs({ claim, limits, timing }: Facts, step: Step, { failedMs }: FailingStep): number {
  // A drain waits no longer than the longest backoff, whatever the server asked for.
  if (limits.draining) return failedMs + timing.retryMaxMs;
  const { own: lease, memory } = claim.lease;
  // After a read of the item, the request that needs it must also land in time.
  const secondRequestMs = step.do === "look" ? timing.requestBoundMs : 0;
  const landsBefore = (endMs: number) =>
    endMs - timing.requestBoundMs - timing.marginMs - TIMER_LATENESS_MS - secondRequestMs;
  if (lease?.is === "held") return landsBefore(leaseEndMs(lease));
  if (lease === null && memory.is === "fenced") return landsBefore(memory.beatSentMs + memory.ttlMs);
  const sinceMs = lease === null ? noHeartbeatsSinceMs(claim, timing) : null;
  if (sinceMs === null) return Number.POSITIVE_INFINITY;
  // Before the operator may take the lease, a read must show the heartbeat, which must then not change for this long.
  const quietMs = step.do === "look" && memory.is === "none" ? timing.beatIntervalMs + timing.quietMarginMs : 0;
  return landsBefore(sinceMs + timing.assumedTtlMs - quietMs);
}

/**
 * Since when neither the operator nor the container sends heartbeats, so that the item returns to the queue one TTL
 * later; null: the container's program sends them.
 */
function noHeartbeatsSinceMs(
  { record: { journal }, observed: { endedMs }, othersUntilMs, lateAckUntilMs }: Claim,
  timing: Timing,
): number | null {
  if (!journal.opened) return lateAckUntilMs - timing.othersReclaimMs;
  return endedMs ?? (journal.lease === "Operator" ? othersUntilMs : null);
}
