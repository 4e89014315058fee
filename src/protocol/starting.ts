import type { Timing } from "../core/timing.ts";
import { IMAGE_PULL_RETRIED } from "../kube/objects.ts";
import type { Claim } from "./claim.ts";
import type { Facts } from "./facts.ts";
import { deletePod, type Step, waitUntil } from "./step.ts";

// --- 5. Open: the key is in the Secret, and the container does not run yet --------------------------------------

/** The next step while a container has its key and does not run yet, for both kinds of lease. */
export function starting(facts: Facts): Step {
  const { claim, pod, nowMs, timing, limits } = facts;
  const openedMs = claim.record.openedMs ?? nowMs;
  const patience = openedMs + limits.firstBeatTimeoutMs;
  // The node garbage-collected the image after the Pod was parked, so the kubelet pulls it again.
  if (pod.is === "preparing" && pod.problem && (nowMs >= patience || !IMAGE_PULL_RETRIED.has(pod.problem.reason))) {
    return deletePod("StartFailed", `the container does not start: ${pod.problem.reason}: ${pod.problem.message}`);
  }
  if (nowMs >= patience) {
    return deletePod(
      "StartFailed",
      "the container did not start within firstBeatTimeoutSeconds of being given its session",
    );
  }
  const needsTouch = pod.is === "parked" || !facts.podAssigned || claim.record.touchedMs === null;
  if (!needsTouch) return { do: "wait", untilMs: patience };
  const touchAt = nextTouchMs(claim, timing);
  return nowMs >= touchAt ? { do: "touch" } : waitUntil(touchAt, patience);
}

/**
 * When the Pod is touched next. The kubelet's watches of Secrets and Pods are not ordered: it may handle a touch before
 * it sees the key, so the touch is repeated.
 */
export function nextTouchMs(
  { record: { touches, touchedMs }, failing }: Readonly<Claim>,
  { touchAgainMs }: Timing,
): number {
  if (touchedMs === null) return Number.NEGATIVE_INFINITY;
  const pauseMs = touchAgainMs[Math.min(touches, touchAgainMs.length) - 1] ?? 0;
  // The API server may refuse touches for as long as the session lasts, so failed ones back off.
  return Math.max(touchedMs + pauseMs, failing?.get("touch")?.untilMs ?? 0);
}
