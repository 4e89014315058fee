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
  if (nowMs >= patience) {
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
  return record.delivery === "unknown" ? findDelivery(facts) : { do: "deliver" };
}

/**
 * A line without an answer may have started the program: the item shows whether it is still ours, then the container's
 * log shows whether its program started.
 */
function findDelivery(facts: Facts): Step {
  const { claim } = facts;
  const { item } = claim.observed;
  if (!item || item.askedMs < (claim.record.deliverySentMs ?? 0)) return LOOK;
  if (item.state === "unknown") return lookAgain(facts);
  if (item.state === "stopped" || item.state === "stopping") {
    return deletePod("StoppedByUser", "the work item was stopped before its container read its line");
  }
  const because = outOfOurHands(claim, item);
  if (because !== null) return deletePod("LeaseLost", `the work item is ${because}`);
  // The operator's own heartbeats say nothing about the program.
  const isBeaten = item.state === "active" && claim.record.journal.lease === "Worker";
  return isBeaten ? { do: "delivered", by: "item" } : { do: "read-log" };
}
