import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import type { Breaker } from "../../src/protocol/breaker.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { endedView, liveView, phaseOf, type SessionView } from "../../src/protocol/session-view.ts";
import { SessionRecorder } from "../../src/sessions/session-recorder.ts";
import { recordedPod } from "../pods/pods.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { acknowledged, claimOf, END, JOURNAL, OURS, opened, POLLED, view } from "./claims.ts";

const clock = new VirtualClock();
const running = recordedPod("running");
const completed = { reason: "Completed", message: "", failed: false } as const;

/** A recorder that counts nothing. */
const notes = (ended: SessionView[] = []) => {
  const metric = { observe: () => {}, inc: () => {} };
  const metrics = new Proxy({}, { get: () => metric });
  const log = { info: () => {} };
  const announce = () => {};
  const context = { clock, timing: DEFAULT_TIMING, labels: {}, metrics, logger: log, announce, namespace: "agents" };
  const environment = () => ({ spec: {} });
  const onSessionEnded = (session: SessionView) => ended.push(session);
  const breaker = { hasServed: true, succeeded: () => {}, released: () => {} } as unknown as Breaker;
  return new SessionRecorder(
    { ...context, environment, onSessionEnded } as unknown as SessionContext,
    breaker,
    () => {},
  );
};

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

describe("recording a session", () => {
  const startedAt = "2030-01-01T00:00:05.250Z";

  test("takes the first heartbeat from the Work API's record, even if read only after the end", () => {
    const [alive, over] = [opened(), opened({ end: END })];
    notes().saw(alive, view("active", POLLED + 9_000, { startedAt }));
    notes().saw(over, view("stopped", POLLED + 9_000, { startedAt }));
    expect([alive.observed.firstBeatAtMs, over.observed.firstBeatAtMs]).toEqual([
      Date.parse(startedAt),
      Date.parse(startedAt),
    ]);
  });

  test("records no heartbeat when the only one was Berth's own fence", () => {
    const [ended, late] = [
      opened({ end: END, neverBeaten: true }),
      opened({ ending: { why: "NoFirstBeat", message: "" } }),
    ];
    for (const claim of [ended, late]) {
      notes().saw(claim, view("active", POLLED + 9_000, { startedAt }));
      expect(claim.observed.firstBeatAtMs).toBeNull();
    }
  });

  test("reports the end of a session to observers, but not the end of a claim without a session", () => {
    const told: SessionView[] = [];
    notes(told).settled(acknowledged(), "acknowledged by somebody else", null);
    expect(told).toEqual([]);
    notes(told).settled(opened({ firstBeatSeen: true }), "stopped", completed);
    expect(told).toMatchObject([{ phase: "ended", reason: "Completed", failed: false, stoppedAtMs: clock.now() }]);
  });
});
