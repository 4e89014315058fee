import { describe, expect, test } from "vitest";
import type { PodState } from "../../src/pods/pod-state.ts";
import { unopenedOutcome } from "../../src/protocol/outcome.ts";
import { type ClaimFields, claimOf, END, OURS } from "./claims.ts";

const PARKED: PodState = { is: "parked" };
const GONE = { is: "gone" } as const;
const FENCED = { is: "fenced", beatSentMs: 20_000, ttlMs: 90_000 } as const;

const acknowledged = (more: ClaimFields = {}) => claimOf({ acknowledgedAt: OURS, memory: FENCED, ...more });

describe("a session that was acknowledged and never opened", () => {
  test.each(["stopped", "queued"])("whose Pod was evicted meanwhile ended by that: item %s", (because) => {
    const end = { ...END, cause: "Evicted", message: "Eviction API: evicting", exitCode: null } as const;
    expect(unopenedOutcome(acknowledged({ end }), because, GONE, false)).toEqual({
      reason: "Evicted",
      message: "Eviction API: evicting; the session had not been opened",
      failed: true,
    });
  });

  test("whose Pod is gone, and nobody saw why", () => {
    expect(unopenedOutcome(acknowledged(), "stopped", GONE, false)).toMatchObject({
      reason: "PodDeleted",
      failed: true,
    });
  });

  test("whose Pod is not ready any more did not start, in kubelet's words", () => {
    const problem = { reason: "ErrImagePull", message: "no such image" };
    expect(unopenedOutcome(acknowledged(), "stopped", { is: "preparing", problem }, false)).toEqual({
      reason: "StartFailed",
      message: "the Pod was not ready any more: ErrImagePull: no such image; the session had not been opened",
      failed: true,
    });
  });

  test("whose Environment was deleted ended by that", () => {
    expect(unopenedOutcome(acknowledged(), "stopped", PARKED, true)).toMatchObject({
      reason: "EnvironmentDeleted",
      failed: false,
    });
  });

  test("whose Secret somebody deleted did not start", () => {
    const outcome = unopenedOutcome(acknowledged({ gone: true }), "stopped", PARKED, false);
    expect(outcome).toMatchObject({ reason: "StartFailed", message: expect.stringContaining("Secret") });
  });

  test.each<[string, ClaimFields]>([
    ["before anybody beat", { memory: { is: "none" } }],
    ["while it was fenced", { stoppingSinceMs: 21_000 }],
  ])("and was stopped by somebody else %s", (_, more) => {
    expect(unopenedOutcome(acknowledged(more), "stopped", PARKED, false)).toMatchObject({ reason: "StoppedByUser" });
  });

  test.each([
    ["queued", PARKED],
    ["absent", GONE],
    ["acknowledged by somebody else", GONE],
  ] as const)("goes on elsewhere: item %s, Pod %o; nothing is told", (because, pod) => {
    expect(unopenedOutcome(acknowledged(), because, pod, false)).toBe(null);
  });
});
