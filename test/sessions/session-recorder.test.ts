import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { readPodState } from "../../src/pods/pod-state.ts";
import { Starts } from "../../src/pods/starts.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { isStartFailure } from "../../src/protocol/first-heartbeat.ts";
import type { SessionView } from "../../src/protocol/session-view.ts";
import { SessionRecorder, StartTimes } from "../../src/sessions/session-recorder.ts";
import type { SleepReport } from "../../src/sleep/sleep-report.ts";
import { isTrue, recordedPod } from "../pods/pods.ts";
import { acknowledged, END, JOURNAL, opened, POLLED, view, withFields } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const clock = new VirtualClock();

/** A recorder that reports ended sessions to `ended` and counts nothing. */
function recorder(ended: SessionView[] = []): SessionRecorder {
  const metric = { observe: () => {}, inc: () => {} };
  const context = {
    clock,
    timing: DEFAULT_TIMING,
    labels: {},
    metrics: new Proxy({}, { get: () => metric }),
    logger: { info: () => {} },
    announce: () => {},
    namespace: "agents",
    environment: () => ({ spec: {} }),
    holds: { starts: new Starts(DEFAULT_TIMING) },
    onSessionEnded: (session: SessionView) => ended.push(session),
  };
  const sleeps = { started: () => null, ended: () => {} } as unknown as SleepReport;
  return new SessionRecorder(context as unknown as SessionContext, sleeps, () => {});
}

const operatorsClaim = (): Claim => opened({ journal: { ...JOURNAL, lease: "Operator", opened: true } });

/** The end of a session whose container exited with 1 right after its start. `more` is added to the Pod's status. */
function endOf(more: object = {}) {
  const pod = recordedPod("exit-1");
  const state = readPodState({ ...pod, status: { ...pod.status, ...more } });
  if (state.is !== "ended") throw new Error(`the Pod is ${state.is}`);
  return state.end;
}

describe("a session whose container ended before it served", () => {
  test("counts against its template", () => {
    const claim = operatorsClaim();
    recorder().ended(claim, endOf());
    expect(isStartFailure(claim)).toBe(true);
  });

  test("does not count against its template when the kubelet reports later that it evicted the Pod", () => {
    const claim = operatorsClaim();
    const recording = recorder();
    recording.ended(claim, endOf());
    const target = { ...isTrue("DisruptionTarget"), reason: "TerminationByKubelet" };
    recording.ended(claim, endOf({ reason: "Evicted", message: "low on memory", conditions: [target] }));
    expect(claim.observed.end).toMatchObject({ cause: "Evicted", exitCode: 1, message: "low on memory" });
    expect(isStartFailure(claim)).toBe(false);
  });
});

describe.each(["Worker", "Operator"] as const)(
  "lease: %s: a container that ended before its first heartbeat",
  (lease) => {
    /**
     * Whether this end counts against the template, after the operator fenced the item without having read a heartbeat.
     */
    const counts = (recorded: string, more: object = {}) => {
      const pod = recordedPod(recorded);
      const state = readPodState({ ...pod, status: { ...pod.status, ...more } });
      if (state.is !== "ended") throw new Error(`the Pod is ${state.is}`);
      const claim = opened({ journal: { ...JOURNAL, lease, opened: true } });
      recorder().ended(claim, state.end);
      if (lease === "Worker") withFields(claim, { neverBeaten: true });
      return isStartFailure(claim);
    };

    test.each(["exit-1", "oom-killed", "start-error-failed"])("counts against its template: %s", (recorded) => {
      expect(counts(recorded)).toBe(true);
    });

    test("counts against its template when the kubelet killed it, as after a failed liveness probe", () => {
      const [status] = recordedPod("exit-1").status?.containerStatuses ?? [];
      const terminated = { ...status?.state?.terminated, exitCode: 137 };
      expect(counts("exit-1", { containerStatuses: [{ ...status, state: { terminated } }] })).toBe(true);
    });

    test.each([
      "deleted-exit-143",
      "sigterm-ignored-exit-137",
      "evicted-emptydir-size",
      "evicted-ephemeral-storage",
      "active-deadline-exceeded",
    ])("does not count against its template: %s", (recorded) => {
      expect(counts(recorded)).toBe(false);
    });

    test("does not count against its template when it exited with 0 because its Pod was deleted", () => {
      const claim = opened({ journal: { ...JOURNAL, lease: "Worker", opened: true }, neverBeaten: true });
      const state = readPodState(recordedPod("deleted-sigterm-handled-exit-0"));
      if (state.is === "ended") recorder().ended(claim, state.end);
      expect([claim.observed.end?.cause, isStartFailure(claim)]).toEqual(["PodDeleted", false]);
    });
  },
);

test.each([
  ["with one fence, the second heartbeat", { seen: null, left: 1 }, ["one", "one", "other"]],
  [
    "with two fences, the third heartbeat, regardless of a read in between",
    { seen: "one", left: 1 },
    ["one", "two", "other"],
  ],
] as const)("after unanswered fences: %s is the program's first", (_, blindFence, beats) => {
  const claim = opened({ blindFence });
  const recording = recorder();
  const seen = beats.map((latestHeartbeatAt, at) => {
    recording.saw(claim, view("active", at, { latestHeartbeatAt }));
    return claim.observed.firstBeatSeen;
  });
  expect(seen).toEqual([false, false, true]);
  expect(claim.lease.blindFence).toBeNull();
});

describe("recording a session", () => {
  const startedAt = "2030-01-01T00:00:05.250Z";

  test("takes the first heartbeat from the Work API's record, even if read only after the end", () => {
    const [alive, over] = [opened(), opened({ end: END })];
    recorder().saw(alive, view("active", POLLED + 9_000, { startedAt }));
    recorder().saw(over, view("stopped", POLLED + 9_000, { startedAt }));
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
      recorder().saw(claim, view("active", POLLED + 9_000, { startedAt }));
      expect(claim.observed.firstBeatAtMs).toBeNull();
    }
  });

  test("reports the end of a session to observers, but not the end of a claim without a session", () => {
    const told: SessionView[] = [];
    recorder(told).settled(acknowledged(), "acknowledged by another client", null);
    expect(told).toEqual([]);
    recorder(told).settled(opened({ firstBeatSeen: true }), "stopped", {
      reason: "Completed",
      message: "",
      failed: false,
    });
    expect(told).toMatchObject([{ phase: "ended", reason: "Completed", failed: false, stoppedAtMs: clock.now() }]);
  });
});

/** Start times of containers that started this long after the last touch of their Pods. */
function startTimesOf(...sinceTouchMs: number[]): StartTimes {
  const starts = new StartTimes();
  for (const ms of sinceTouchMs) starts.note(ms);
  return starts;
}

describe("the wait before another touch", () => {
  test("is zero before the first start", () => {
    expect(new StartTimes().patienceMs).toBe(0);
  });

  test("is longer than the usual start of a slow node", () => {
    expect(startTimesOf(900, 800, 1_000).patienceMs).toBe(2_250);
  });

  test("ignores one late container", () => {
    expect(startTimesOf(100, 120, 9_000, 110).patienceMs).toBe(300);
  });

  test("is at most a few seconds", () => {
    expect(startTimesOf(60_000).patienceMs).toBe(4_000);
  });

  test("gets shorter with the newest starts of a faster node", () => {
    expect(
      startTimesOf(...Array.from({ length: 50 }, () => 2_000), ...Array.from({ length: 16 }, () => 100)).patienceMs,
    ).toBe(250);
  });

  // When the kubelet misses the first touch, the container starts right after the second one.
  test("is not longer after missed touches", () => {
    const starts = new StartTimes();
    for (let session = 0; session < 100; session += 1) starts.note(150);
    expect(starts.patienceMs).toBeLessThan(500);
  });
});
