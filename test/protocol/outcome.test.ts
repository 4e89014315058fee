import { describe, expect, test } from "vitest";
import type { PodState } from "../../src/pods/pod-state.ts";
import { unopenedOutcome } from "../../src/protocol/outcome.ts";
import { type ClaimFields, claimOf, END, OURS } from "./claims.ts";

const PARKED: PodState = { is: "parked" };
const GONE = { is: "gone" } as const;
const FENCED = { is: "fenced", beatSentMs: 20_000, ttlMs: 90_000 } as const;

const acknowledged = (more: ClaimFields = {}) => claimOf({ acknowledgedAt: OURS, memory: FENCED, ...more });

describe("a session that was acknowledged and never opened", () => {
  test.each(["stopped", "queued"])("reports the eviction of its Pod: item %s", (because) => {
    const end = { ...END, cause: "Evicted", message: "Eviction API: evicting", exitCode: null } as const;
    expect(unopenedOutcome(acknowledged({ end }), because, GONE, false)).toEqual({
      reason: "Evicted",
      message: "Eviction API: evicting; the session had not started",
      failed: true,
    });
  });

  test("reports PodDeleted when its Pod was deleted for an unknown reason", () => {
    expect(unopenedOutcome(acknowledged(), "stopped", GONE, false)).toMatchObject({
      reason: "PodDeleted",
      failed: true,
    });
  });

  test("reports a failed start with the kubelet's message when its Pod is no longer ready", () => {
    const problem = { reason: "ErrImagePull", message: "no such image" };
    expect(unopenedOutcome(acknowledged(), "stopped", { is: "preparing", problem }, false)).toEqual({
      reason: "StartFailed",
      message: "the Pod was no longer ready: ErrImagePull: no such image; the session had not started",
      failed: true,
    });
  });

  test("reports EnvironmentDeleted during a drain", () => {
    expect(unopenedOutcome(acknowledged(), "stopped", PARKED, true)).toMatchObject({
      reason: "EnvironmentDeleted",
      failed: false,
    });
  });

  test("reports a failed start when its Secret was deleted", () => {
    const outcome = unopenedOutcome(acknowledged({ gone: true }), "stopped", PARKED, false);
    expect(outcome).toMatchObject({ reason: "StartFailed", message: expect.stringContaining("Secret") });
  });

  test.each<[string, ClaimFields]>([
    ["before any heartbeat", { memory: { is: "none" } }],
    ["while it was fenced", { stoppingSinceMs: 21_000 }],
  ])("reports StoppedByUser when it was stopped %s", (_, more) => {
    expect(unopenedOutcome(acknowledged(more), "stopped", PARKED, false)).toMatchObject({ reason: "StoppedByUser" });
  });

  test.each([
    ["queued", PARKED],
    ["absent", GONE],
    ["acknowledged by another client", GONE],
  ] as const)("reports nothing when another client may run it: item %s, Pod %o", (because, pod) => {
    expect(unopenedOutcome(acknowledged(), because, pod, false)).toBe(null);
  });
});
