import { assignAtMs, type Facts, lookAgain, outOfOurHands } from "./facts.ts";
import { deletePod, LOOK, type Step, waitUntil } from "./step.ts";

// --- 5. Open: the claim is opened, and its container still waits for its line (parking: Shell and Program) ----------

/**
 * The next step until the container has read its line. The line is sent only when the Secret says `opened` and the Pod
 * says `assigned` (M): otherwise a Pod whose line was sent could look free. A woken Pod is free for no other session, so
 * it is assigned after its first line (M), and before the next one. Once a line may be on its way, the item is not
 * settled before the container has ended.
 */
export function delivering(facts: Facts): Step {
  const { claim, nowMs, limits } = facts;
  const { record } = claim;
  const patience = (record.openedMs ?? nowMs) + limits.firstBeatTimeoutMs;
  if (nowMs >= patience && !mayRun(facts, patience)) {
    const said = claim.failing?.get("deliver")?.message ?? claim.failing?.get("touch")?.message;
    const what = "the container did not read its session's line within firstBeatTimeoutSeconds";
    return deletePod("StartFailed", said ? `${what}: ${said}` : what);
  }
  const isWoken = claim.turn > 1;
  const unstartedMs = record.unstartedMs ?? unansweredOpeningMs(facts);
  const line = (): Step => (unstartedMs === null ? { do: "deliver" } : redeliver(facts, unstartedMs));
  if (isWoken && record.delivery === "unsent" && record.unstartedMs === null) return line();
  const touchAt = record.assigned ? Number.POSITIVE_INFINITY : assignAtMs(facts);
  // Past its patience, the operator still assigns the Pod of a program that may run.
  if (nowMs >= touchAt) return { do: "touch" };
  const untilAssigned = touchAt < Number.POSITIVE_INFINITY && waitUntil(touchAt, nowMs < patience ? patience : touchAt);
  if (!isWoken && untilAssigned) return untilAssigned;
  // An unconfirmed line may have started the program.
  if (record.delivery === "unknown") return isBeaten(facts) ? { do: "delivered", by: "item" } : { do: "read-log" };
  const step = line();
  return step.do === "deliver" && untilAssigned ? untilAssigned : step;
}

/**
 * When a conflict showed that an opening without an answer took effect; null: the opening was answered. Until then the
 * claim was settled like one that was never opened, so its item may be stopped or another client's.
 */
function unansweredOpeningMs({ claim: { record } }: Facts): number | null {
  return record.delivery === "unsent" && record.openedAtMs === null ? record.openedMs : null;
}

/** Whether an earlier process may have started the program: neither the log nor a late view of the item denies it. */
function mayRun({ claim: { record, observed } }: Facts, patience: number): boolean {
  if (record.openedAtMs !== null) return false;
  const { item } = observed;
  const isUnbeaten = record.journal.lease === "Worker" && item?.state === "starting" && item.askedMs >= patience;
  return record.delivery === "unknown" || (record.delivery === "unclear" && !isUnbeaten);
}

/** Whether heartbeats of the worker show that the program runs. */
function isBeaten({ claim: { record, observed } }: Facts): boolean {
  return record.journal.lease === "Worker" && observed.item?.state === "active";
}

/** The log does not show that the program has started. The line is sent again if the item is still ours. */
function redeliver(facts: Facts, unstartedMs: number): Step {
  const { claim } = facts;
  const { item } = claim.observed;
  if (!item || item.askedMs < unstartedMs) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  const because = outOfOurHands(claim, item);
  if (because === null && isBeaten(facts)) return { do: "delivered", by: "item" };
  if (item.state === "stopped" || item.state === "stopping") {
    return deletePod("StoppedByUser", "the work item was stopped before its container read its line");
  }
  return because === null ? { do: "deliver" } : deletePod("LeaseLost", `the work item is ${because}`);
}
