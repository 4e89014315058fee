import type { Verdict } from "../api/conditions.ts";
import { ofRuntimeClass } from "../api/isolation.ts";
import { unended } from "../core/text.ts";
import { apiTime } from "../kube/objects.ts";
import type { Breaker } from "../pods/breaker.ts";
import type { CapacityProblem } from "../pool/capacity-problem.ts";

/**
 * The verdict on capacity: what blocks it, or that maxConcurrent is reached while work waits.
 * @param use `heldBy`: why ended sessions still use Pods; null if they do not. `wasReady`: a Pod of the current template
 * has been ready
 */
export function capacityVerdict(
  problem: CapacityProblem,
  use: { busy: number; max: number; depth: number; heldBy: string | null; wasReady: boolean },
): Verdict {
  switch (problem?.is) {
    case undefined:
      if (use.depth > 0 && use.busy >= use.max) {
        const why = use.heldBy ?? "raise it to run more sessions at a time";
        return {
          reason: "AtMaximum",
          message: `spec.sessions.maxConcurrent: all ${use.max} Pods are in use and more work waits; ${why}`,
        };
      }
      return use.wasReady
        ? { reason: "Available", message: "Pods can be created and get ready" }
        : { reason: "CapacityUnchecked", message: "no Pod of the current template has been ready yet" };
    case "quota":
      return {
        reason: "QuotaExceeded",
        message: `the namespace's quota has no room for a Pod: ${problem.message}; raise the quota, or lower maxConcurrent, warm or the template's requests`,
      };
    case "unschedulable":
      return {
        reason: "Unschedulable",
        message: `no node takes a Pod${ofRuntimeClass(problem.runtimeClass)}: ${unended(problem.message)}; add nodes, or change the template's requests, selectors and tolerations`,
      };
    case "gated":
      return { reason: "SchedulingGated", message: `a Pod ${problem.message}; check the controllers that remove them` };
    case "image":
      return {
        reason: "ImagePullFailing",
        message: `${unended(problem.message)}; correct the image's name or its imagePullSecrets`,
      };
    case "refused":
      return {
        reason: "PreparationFailing",
        message: `the API server refuses Pods, although it accepted the template: ${unended(problem.message)}; change the template, or the policy that refuses it`,
      };
    case "attach":
      return { reason: "AttachFailing", message: `cannot attach to waiting Pods: ${problem.message}` };
    case "volume":
      return {
        reason: "PreparationFailing",
        message: `volumes of sessions are not available: ${unended(problem.message)}`,
      };
    case "preparing":
      return { reason: "PreparationFailing", message: `Pods do not get ready: ${unended(problem.message)}` };
    default:
      return problem satisfies never;
  }
}

/** The verdict on starts of containers. `probeWallMs`: when the next probe can be claimed, on the wall clock. */
export function startVerdict(breaker: Breaker, probeWallMs: number): Verdict {
  if (breaker.isOpen) {
    return {
      reason: "BreakerOpen",
      message: `${breaker.failures} sessions in a row did not start: ${unended(breaker.message)}; fix the image or the template; Berth tries a changed template at once, and otherwise one session after ${apiTime(probeWallMs)}`,
    };
  }
  return breaker.hasServed
    ? { reason: "Starting", message: "sessions of the current template start" }
    : { reason: "NoSessionYet", message: "no session of the current template has started yet" };
}

/**
 * The verdict on the credentials of work items.
 * @param missing the first of consecutive work items without a secret; null if the last item had one; undefined if there
 * was none
 * @param credential `spec.sessions.credential`
 * @param offers counts consecutive items without a secret
 * @param probeWallMs as in `startVerdict`
 */
export function credentialVerdict(
  missing: string | null | undefined,
  credential: string,
  offers: Breaker,
  probeWallMs: number,
): Verdict {
  if (credential === "EnvironmentKey")
    return { reason: "CredentialsPresent", message: "Pods use the environment key, so work items need no secret" };
  if (missing === undefined) return { reason: "CredentialUnchecked", message: "no work item has come yet" };
  if (missing === null) return { reason: "CredentialsPresent", message: "work items come with their own secret" };
  if (offers.isOpen) {
    return {
      reason: "CredentialMissing",
      message: `spec.sessions.credential: the last ${offers.failures} work items came without their own secret and were stopped; claiming is paused, and Berth tries the next item after ${apiTime(probeWallMs)}; set EnvironmentKey (every Pod then gets a key to the whole environment), or use an environment that issues secrets`,
    };
  }
  return {
    reason: "CredentialMissing",
    message: `spec.sessions.credential: work item ${missing} came without its own secret and was stopped; set EnvironmentKey if this environment issues no secrets (every Pod then gets a key to the whole environment)`,
  };
}
