import type { Environment } from "../api/environment.ts";
import { FROM_OUTSIDE } from "../pods/pod-state.ts";
import { NO_HEARTBEAT } from "../work/types.ts";
import type { Claim } from "./claim.ts";
import type { ItemView } from "./claim-observed.ts";
import { type Facts, isFenced, lookAgain } from "./facts.ts";
import type { Step } from "./step.ts";

/**
 * A Pod ended, or is given up, before its item had a heartbeat: the item is still `starting`. One heartbeat of our own
 * takes the lease, since an item without one could stay `starting` forever. Then the item is listed again, and settling.ts
 * stops it, or lets it return to the queue with onPodFailure: Release. `outcome.ts` says how the session ended: a
 * container that exited with 0 as NoFirstBeat, any other by its own cause.
 */
export function settleBeforeFirstHeartbeat(facts: Facts): Step {
  // The list doesn't show our heartbeat yet.
  return isFenced(facts) ? lookAgain(facts) : { do: "fence", expected: NO_HEARTBEAT };
}

/**
 * How long the first heartbeat may still take. While the Work API was silent, the worker's requests failed too: that
 * time doesn't count, and the worker's next try may come one heartbeat interval later.
 */
export function firstBeatInMs({ claim, nowMs, timing, limits }: Facts, ranMs: number): number {
  const leftMs = limits.firstBeatTimeoutMs + claim.observed.silentMs - ranMs;
  return claim.observed.silenceEndMs === null
    ? leftMs
    : Math.max(leftMs, claim.observed.silenceEndMs + timing.beatIntervalMs - nowMs);
}

const FIX = "set lease: Operator if the program does not send heartbeats";

/**
 * The message of a session that was fenced because its container sent no heartbeat, in firstBeatTimeoutSeconds or before
 * the session's end if that comes first.
 */
export function noFirstBeatMessage({ metadata, spec }: Environment): string {
  const { firstBeatTimeoutSeconds = 0, maxDurationSeconds = 0 } = spec.sessions ?? {};
  const [seconds, field] =
    maxDurationSeconds < firstBeatTimeoutSeconds
      ? [maxDurationSeconds, "maxDurationSeconds"]
      : [firstBeatTimeoutSeconds, "firstBeatTimeoutSeconds"];
  const draining = metadata.deletionTimestamp ? ", or before the Environment's deletionGraceSeconds had passed" : "";
  return `the container sent no heartbeat within ${seconds} s of its start (${field})${draining}; ${FIX}`;
}

/** The message of a session whose container ended before its first heartbeat, although nothing failed. */
export const LEFT_UNBEATEN = `the container ended with exit code 0 and never sent a heartbeat; ${FIX}`;

/** The program's first heartbeat by the Work API's clock; null if there is none but our fence. Only for display. */
export function programsBeatMs(claim: Claim, { startedAt }: ItemView): number | null {
  const isFence =
    claim.lease.neverBeaten || claim.lease.blindFence !== null || claim.record.ending?.why === "NoFirstBeat";
  const beatMs = isFence ? Number.NaN : Date.parse(startedAt ?? "");
  return Number.isNaN(beatMs) ? null : beatMs;
}

/** Whether the Pod ended before its program served. */
export function isStartFailure({ observed, record: { ending }, lease }: Claim): boolean {
  const { end, neverServed } = observed;
  // Berth ended the Pod because its program did not serve.
  if (ending?.why === "NoFirstBeat" || ending?.why === "StartFailed") return true;
  if (end !== null && FROM_OUTSIDE.has(end.cause)) return false;
  return end?.cause === "StartFailed" || lease.neverBeaten || neverServed;
}
