import { type Facts, lookAgain, nextTouchMs, outOfOurHands } from "./facts.ts";
import { deletePod, LOOK, type Step, waitUntil } from "./step.ts";

// --- 5. Open: the claim is opened, and its container still waits for its line (parking: Shell and Program) ----------

/**
 * The next step until the container has read its line. The line is sent only when the Secret says `opened` and the Pod
 * says `assigned` (M): otherwise a Pod whose line was sent could look free. Once a line may be on its way, the item is
 * not settled before the container has ended.
 */
export function delivering(facts: Facts): Step {
  const { claim, nowMs, limits, timing } = facts;
  const { record } = claim;
  const patience = (record.openedMs ?? nowMs) + limits.firstBeatTimeoutMs;
  // If an earlier process opened the claim, its program may have been running for a long time.
  const mayRun = isInherited(facts) && record.delivery === "unknown";
  if (nowMs >= patience && !mayRun) {
    const said = claim.failing?.get("deliver")?.message ?? claim.failing?.get("touch")?.message;
    return deletePod(
      "StartFailed",
      `the container did not read its session's line within firstBeatTimeoutSeconds${said ? `: ${said}` : ""}`,
    );
  }
  if (!facts.podAssigned && !record.assigned) {
    const touchAt = nextTouchMs(claim, timing);
    return nowMs >= touchAt ? { do: "touch" } : waitUntil(touchAt, patience);
  }
  if (record.delivery === "unknown") return findDelivery(facts);
  return record.unstartedMs === null ? { do: "deliver" } : redeliver(facts, record.unstartedMs);
}

function isInherited({ claim }: Facts): boolean {
  return claim.record.openedAtMs === null;
}

/** An unconfirmed line may have started the program. Its heartbeats or the container's log show that. */
function findDelivery(facts: Facts): Step {
  const { record, observed } = facts.claim;
  const isBeaten = record.journal.lease === "Worker" && observed.item?.state === "active";
  return isBeaten ? { do: "delivered", by: "item" } : { do: "read-log" };
}

/** The log does not show that the program has started. The line is sent again if the item is still ours. */
function redeliver(facts: Facts, unstartedMs: number): Step {
  const { claim } = facts;
  const { item } = claim.observed;
  if (!item || item.askedMs < unstartedMs) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  if (item.state === "stopped" || item.state === "stopping") {
    return deletePod("StoppedByUser", "the work item was stopped before its container read its line");
  }
  const because = outOfOurHands(claim, item);
  return because === null ? { do: "deliver" } : deletePod("LeaseLost", `the work item is ${because}`);
}
