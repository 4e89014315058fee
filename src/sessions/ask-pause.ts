import { backoffCeiling } from "../core/backoff.ts";
import type { Random } from "../core/random.ts";
import { WorkApiError } from "../work/errors.ts";
import { askedPauseMs } from "../work/retry-after.ts";
import type { Claim } from "./claim.ts";
import type { Facts, Step } from "./facts.ts";
import { leaseEndMs } from "./lease.ts";
import type { Timing } from "./timing.ts";

/** How late a timer may be on a busy machine. */
const LATENESS_MS = 500;

/** Steps that are requests to the Work API. */
const ASKS: ReadonlySet<Step["do"]> = new Set(["look", "take", "fence", "stop"]);

/** Requests of a claim that the Work API did not take; times are monotonic. */
export interface AskPause {
  /** The one that failed last. */
  readonly step: Step["do"];
  /** In a row. */
  readonly times: number;
  readonly failedMs: number;
  /** Before this none is sent again. */
  readonly untilMs: number;
  /** The server said how long. */
  readonly isAsked: boolean;
}

export function asks(step: Step): boolean {
  return ASKS.has(step.do);
}

/**
 * A step's request failed. The pause is the claim's own, beside that of the queue: whatever pokes the claim meanwhile, and
 * a beat that follows a stop does, is no reason to send it again.
 */
export function noteFailedAsk(
  claim: Claim,
  step: Step,
  error: unknown,
  nowMs: number,
  timing: Timing,
  random: Random,
): void {
  if (!asks(step) || !(error instanceof WorkApiError)) return;
  const times = (claim.askPause?.times ?? 0) + 1;
  const ceilingMs = backoffCeiling({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, times - 1);
  const backoffMs = ceilingMs / 2 + (ceilingMs / 2) * random();
  const askedMs = askedPauseMs(error, random);
  const untilMs = nowMs + Math.max(backoffMs, askedMs ?? 0);
  claim.askPause = { step: step.do, times, failedMs: nowMs, untilMs, isAsked: askedMs !== null };
}

/** What a look shows does not make a stop welcome that was refused before. */
export function noteAnswered(claim: Claim, step: Step): void {
  if (claim.askPause?.step === step.do) claim.askPause = null;
}

/**
 * Until when (monotonic) this step is held back: as long as the server asked for, but once while it can still land in time.
 * Later is safe, since each step is decided on anew and no stop is sent without the lease; but it costs the item its end, or
 * the session its Pod.
 */
export function heldBackUntilMs(facts: Facts, step: Step): number {
  const { askPause } = facts.claim;
  if (askPause === null || !asks(step)) return Number.NEGATIVE_INFINITY;
  const lastMs = lastChanceMs(facts, step, askPause);
  return lastMs > askPause.failedMs ? Math.min(askPause.untilMs, lastMs) : askPause.untilMs;
}

function lastChanceMs({ claim, limits, timing }: Facts, step: Step, { failedMs }: AskPause): number {
  // A drain waits for nobody.
  if (limits.draining) return failedMs + timing.retryMaxMs;
  const { lease, memory } = claim;
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
function unbeatenSinceMs({ journal, endedMs, othersUntilMs, lateAckUntilMs }: Claim, timing: Timing): number | null {
  if (!journal.opened) return lateAckUntilMs - timing.othersReclaimMs;
  return endedMs ?? (journal.lease === "Operator" ? othersUntilMs : null);
}
