import type { Timing } from "../core/timing.ts";
import type { Claim } from "./claim.ts";
import type { Facts } from "./facts.ts";
import { leaseEndMs } from "./lease.ts";
import type { Step } from "./step.ts";
import { type FailingByStep, type FailingStep, STEPS, type StepName } from "./tracked-steps.ts";

/** How late a timer may be on a busy machine. */
const LATENESS_MS = 500;

/** Steps that are requests to the Work API. */
const ASKS: ReadonlySet<Step["do"]> = new Set(["look", "take", "fence", "stop"]);

export function asks(step: Step): boolean {
  return ASKS.has(step.do);
}

/** The name under which failures of this step are kept; null: it sends nothing that could fail. */
export function stepNameOf({ do: name }: Step): StepName | null {
  return Object.hasOwn(STEPS, name) ? (name as StepName) : null;
}

/**
 * Until when (monotonic) this step is held back after a failure. Of steps that ask the Work API one holds back all: as long
 * as the server asked for, but once while it can still land in time. Later is safe, since each step is decided again and no
 * stop is sent without the lease; but it costs the item its end, or the session its Pod.
 */
export function heldBackUntilMs(facts: Facts, step: Step): number {
  const { failing } = facts.claim;
  const name = stepNameOf(step);
  if (failing === null || name === null) return Number.NEGATIVE_INFINITY;
  if (!asks(step)) return failing.get(name)?.untilMs ?? Number.NEGATIVE_INFINITY;
  const ask = lastAsk(failing);
  if (ask === null) return Number.NEGATIVE_INFINITY;
  const lastMs = lastChanceMs(facts, step, ask);
  return lastMs > ask.failedMs ? Math.min(ask.untilMs, lastMs) : ask.untilMs;
}

/** The request to the Work API that failed last. */
function lastAsk(failing: FailingByStep): FailingStep | null {
  let last: FailingStep | null = null;
  for (const [step, each] of failing) {
    if (ASKS.has(step as Step["do"]) && (last === null || each.failedMs >= last.failedMs)) last = each;
  }
  return last;
}

/** Another key, or another address: what failed is tried at once, unless the server asked for a pause. */
export function forgetPauses({ failing }: Claim): void {
  for (const [step, each] of failing ?? []) if (!each.isAsked) failing?.set(step, { ...each, untilMs: each.failedMs });
}

function lastChanceMs({ claim, limits, timing }: Facts, step: Step, { failedMs }: FailingStep): number {
  // A drain waits for nobody.
  if (limits.draining) return failedMs + timing.retryMaxMs;
  const {
    lease: { own: lease, memory },
  } = claim;
  // Timers are late, and a look is followed by what it was for.
  const asksTwice = step.do === "look" ? timing.requestBoundMs : 0;
  const landsBefore = (endMs: number) => endMs - timing.requestBoundMs - timing.marginMs - LATENESS_MS - asksTwice;
  if (lease?.is === "held") return landsBefore(leaseEndMs(lease));
  if (lease === null && memory.is === "fenced") return landsBefore(memory.beatSentMs + memory.ttlMs);
  const sinceMs = lease === null ? unbeatenSinceMs(claim, timing) : null;
  if (sinceMs === null) return Number.POSITIVE_INFINITY;
  // Before anybody may take the lease its value has to stand still, from a look on.
  const quietMs = step.do === "look" && memory.is === "none" ? timing.beatIntervalMs + timing.quietMarginMs : 0;
  return landsBefore(sinceMs + timing.assumedTtlMs - quietMs);
}

/** Since when nobody of ours beats the item, so that it goes back to the queue a TTL later; null: its program does. */
function unbeatenSinceMs(
  { record: { journal }, observed: { endedMs }, othersUntilMs, lateAckUntilMs }: Claim,
  timing: Timing,
): number | null {
  if (!journal.opened) return lateAckUntilMs - timing.othersReclaimMs;
  return endedMs ?? (journal.lease === "Operator" ? othersUntilMs : null);
}
