import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { readPodState } from "../../src/pods/pod-state.ts";
import type { Breaker } from "../../src/protocol/breaker.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { isStartFailure, SessionRecorder } from "../../src/sessions/session-recorder.ts";
import { isTrue, recordedPod } from "../pods/pods.ts";
import { JOURNAL, opened, view, withFields } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** A recorder with only the context that recording an end needs. */
function notes(): SessionRecorder {
  const context = {
    clock: new VirtualClock(),
    timing: DEFAULT_TIMING,
    labels: {},
    metrics: { sessionSeconds: { observe: () => {} }, startedToFirstBeat: { observe: () => {} } },
  };
  const breaker = { hasServed: true, succeeded: () => {} } as unknown as Breaker;
  return new SessionRecorder(context as unknown as SessionContext, breaker, () => {});
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
    notes().ended(claim, endOf());
    expect(isStartFailure(claim)).toBe(true);
  });

  test("does not count against its template when the kubelet reports later that it evicted the Pod", () => {
    const claim = operatorsClaim();
    const noted = notes();
    noted.ended(claim, endOf());
    const target = { ...isTrue("DisruptionTarget"), reason: "TerminationByKubelet" };
    noted.ended(claim, endOf({ reason: "Evicted", message: "low on memory", conditions: [target] }));
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
      notes().ended(claim, state.end);
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
      if (state.is === "ended") notes().ended(claim, state.end);
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
  const noted = notes();
  const seen = beats.map((latestHeartbeatAt, at) => {
    noted.saw(claim, view("active", at, { latestHeartbeatAt }));
    return claim.observed.firstBeatSeen;
  });
  expect(seen).toEqual([false, false, true]);
  expect(claim.lease.blindFence).toBeNull();
});
