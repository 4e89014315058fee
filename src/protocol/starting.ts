import { IMAGE_PULL_RETRIED } from "../kube/objects.ts";
import { delivering } from "./delivering.ts";
import { type Facts, nextTouchMs } from "./facts.ts";
import { deletePod, type Step, waitUntil } from "./step.ts";

// --- 5. Open: the key is in the Secret, and the container does not run yet --------------------------------------

/** The next step of an opened claim whose program does not run yet, for both kinds of lease. */
export function starting(facts: Facts): Step {
  const { claim, pod, nowMs, timing, limits } = facts;
  if (facts.waitsForLine) return delivering(facts);
  const openedMs = claim.record.openedMs ?? nowMs;
  const patience = openedMs + limits.firstBeatTimeoutMs;
  // The node garbage-collected the image after the Pod was parked, so the kubelet pulls it again.
  if (pod.is === "preparing" && pod.problem && (nowMs >= patience || !IMAGE_PULL_RETRIED.has(pod.problem.reason))) {
    return deletePod("StartFailed", `the container does not start: ${pod.problem.reason}: ${pod.problem.message}`);
  }
  if (nowMs >= patience) {
    return deletePod("StartFailed", "the container did not start its session within firstBeatTimeoutSeconds");
  }
  const needsTouch = pod.is === "parked" || !facts.podAssigned || claim.record.touchedMs === null;
  if (!needsTouch) return { do: "wait", untilMs: patience };
  const touchAt = nextTouchMs(claim, timing);
  return nowMs >= touchAt ? { do: "touch" } : waitUntil(touchAt, patience);
}
