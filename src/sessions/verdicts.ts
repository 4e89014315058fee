import type { Verdict } from "../api/conditions.ts";
import { unended } from "../core/text.ts";
import { apiTime } from "../kube/objects.ts";
import type { Breaker } from "../pods/breaker.ts";

/** The verdict on starts of containers. `probeWallMs`: when the next probe can be claimed, on the wall clock. */
export function startVerdict(breaker: Breaker, probeWallMs: number): Verdict {
  if (breaker.isOpen) {
    const { failures, heldSession, isRefused } = breaker;
    const only = heldSession === null ? "" : `, all of session ${heldSession}; others are still claimed`;
    const fix = isRefused
      ? "fix what refuses the requests; Berth tries"
      : "fix the image or the template; Berth tries a changed template at once, and otherwise";
    return {
      reason: "StartsFailing",
      message: `${failures} starts in a row failed${only}: ${unended(breaker.message)}; ${fix} one session after ${apiTime(probeWallMs)}`,
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
