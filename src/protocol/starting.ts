import { delivering } from "./delivering.ts";
import { assignAtMs, type Facts } from "./facts.ts";
import { deletePod, type Step, waitUntil } from "./step.ts";

/** The next step of an opened claim whose program does not run yet, for both kinds of lease. */
export function starting(facts: Facts): Step {
  const { claim, nowMs, limits } = facts;
  if (facts.waitsForLine) return delivering(facts);
  // A kubelet that restarts may report for a moment that the container waits to be created.
  const patience = (claim.record.openedMs ?? nowMs) + limits.firstBeatTimeoutMs;
  if (nowMs >= patience) {
    return deletePod("StartFailed", "the container did not start its session within firstBeatTimeoutSeconds");
  }
  const touchAt = assignAtMs(facts);
  return nowMs >= touchAt ? { do: "touch" } : waitUntil(touchAt, patience);
}
