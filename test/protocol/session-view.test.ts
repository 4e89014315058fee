import { describe, expect, test } from "vitest";
import type { Pod } from "../../src/kube/resource.ts";
import { endedView, liveView, phaseOf } from "../../src/protocol/session-view.ts";
import { recordedPod } from "../pods/pods.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { at, claimOf, END, JOURNAL, OURS, opened, POLLED } from "./claims.ts";

const clock = new VirtualClock();
const running = recordedPod("running");
const completed = { reason: "Completed", message: "", failed: false } as const;

describe("the view of a session", () => {
  test("is opening until its container runs, then active, and stopping once the container or Berth ends it", () => {
    expect(phaseOf(opened(), undefined)).toBe("opening");
    expect(phaseOf(opened(), running)).toBe("active");
    const leaving: Pod = { ...running, metadata: { ...running.metadata, deletionTimestamp: "2030-01-01T00:00:00Z" } };
    expect(phaseOf(opened(), leaving)).toBe("stopping");
    expect(phaseOf(opened({ end: END }), running)).toBe("stopping");
    expect(phaseOf(claimOf({ podGone: true }), undefined)).toBe("stopping");
    expect(phaseOf(opened({ ending: { why: "MaxDuration", message: "too long" } }), running)).toBe("stopping");
  });

  test("is opening until the program of a waiting Pod has read its line", () => {
    const assigned = {
      ...running.metadata.annotations,
      "berth.dev/parking": "Shell",
      "berth.dev/assigned-at": at(POLLED),
    };
    const waiting = { ...running, metadata: { ...running.metadata, annotations: assigned } };
    expect(phaseOf(opened(), waiting)).toBe("opening");
    expect(phaseOf(opened({ delivery: "unknown" }), waiting)).toBe("opening");
    expect(phaseOf(opened({ delivery: "done" }), waiting)).toBe("active");
    // An earlier process opened the claim: its start is known, and whether the line was read is found out.
    expect(phaseOf(opened({ delivery: "unknown", startedAtMs: 6_000 }), waiting)).toBe("active");
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
