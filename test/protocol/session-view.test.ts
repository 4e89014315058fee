import { describe, expect, test } from "vitest";
import type { Pod } from "../../src/kube/resource.ts";
import { endedView, liveView, phaseOf } from "../../src/protocol/session-view.ts";
import { recordedPod } from "../pods/pods.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { claimOf, END, JOURNAL, OURS, opened } from "./claims.ts";

const clock = new VirtualClock();
const running = recordedPod("running");
const completed = { reason: "Completed", message: "", failed: false } as const;

describe("the view of a session", () => {
  test("is running from its claim on, and stopping once the container or Berth ends it", () => {
    expect(phaseOf(claimOf(), undefined)).toBe("running");
    expect(phaseOf(opened(), running)).toBe("running");
    const leaving: Pod = { ...running, metadata: { ...running.metadata, deletionTimestamp: "2030-01-01T00:00:00Z" } };
    expect(phaseOf(opened(), leaving)).toBe("stopping");
    expect(phaseOf(opened({ end: END }), running)).toBe("stopping");
    expect(phaseOf(claimOf({ podGone: true }), undefined)).toBe("stopping");
    expect(phaseOf(opened({ ending: { why: "MaxDuration", message: "too long" } }), running)).toBe("stopping");
  });

  test("holds the time of each known step", () => {
    expect(liveView(claimOf(), undefined)).toMatchObject({ claimedAtMs: null, openedAtMs: null, beatAtMs: null });
    const claim = opened({ openedAtMs: 5_000, startedAtMs: 6_000, firstBeatAtMs: 7_000 });
    expect(liveView(claim, running)).toMatchObject({
      queuedAtMs: Date.parse(JOURNAL.queuedAt),
      claimedAtMs: Date.parse(OURS),
      openedAtMs: 5_000,
      startedAtMs: 6_000,
      beatAtMs: 7_000,
      stoppedAtMs: null,
      reason: null,
    });
  });

  test("gives the reason while Berth is still ending the session", () => {
    const claim = opened({ ending: { why: "MaxDuration", message: "it took longer than 60 s" } });
    expect(liveView(claim, running)).toMatchObject({ reason: "MaxDuration", message: "it took longer than 60 s" });
  });

  test("holds no credential", () => {
    const secret = Buffer.from("sk-ant-sid01-secret").toString("base64");
    const claim = opened({ credential: secret });
    for (const shown of [liveView(claim, running), endedView(claim, completed, clock)]) {
      expect(JSON.stringify(shown)).not.toContain(secret);
    }
  });
});
