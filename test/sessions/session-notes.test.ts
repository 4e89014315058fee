import { describe, expect, test } from "vitest";
import type { Breaker } from "../../src/sessions/breaker.ts";
import type { Claim } from "../../src/sessions/claim.ts";
import type { SessionContext } from "../../src/sessions/context.ts";
import { readPodState } from "../../src/sessions/pod-state.ts";
import { isStartFailure, SessionNotes } from "../../src/sessions/session-notes.ts";
import { DEFAULT_TIMING } from "../../src/sessions/timing.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { JOURNAL, opened, view } from "./claims.ts";
import { isTrue, recordedPod } from "./pods.ts";

/** Notes of nothing but ends: what of the context that needs. */
function notes(): SessionNotes {
  const context = {
    clock: new VirtualClock(),
    timing: DEFAULT_TIMING,
    labels: {},
    metrics: { sessionSeconds: { observe: () => {} }, startedToFirstBeat: { observe: () => {} } },
  };
  const breaker = { hasServed: true, succeeded: () => {} } as unknown as Breaker;
  return new SessionNotes(context as unknown as SessionContext, breaker, () => {});
}

const operatorsClaim = (): Claim => opened({ journal: { ...JOURNAL, lease: "Operator", opened: true } });

/** A session whose container ended with 1 right after its start; with `more` of the Pod's status. */
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

  test("does not count against its template when kubelet says later that it evicted the Pod", () => {
    const claim = operatorsClaim();
    const noted = notes();
    noted.ended(claim, endOf());
    const target = { ...isTrue("DisruptionTarget"), reason: "TerminationByKubelet" };
    noted.ended(claim, endOf({ reason: "Evicted", message: "low on memory", conditions: [target] }));
    expect(claim.end).toMatchObject({ cause: "Evicted", exitCode: 1, message: "low on memory" });
    expect(isStartFailure(claim)).toBe(false);
  });
});

test.each([
  ["one, the second beat that shows", { seen: null, left: 1 }, ["one", "one", "other"]],
  ["two, the third, whatever was seen between them", { seen: "one", left: 1 }, ["one", "two", "other"]],
] as const)("after fences that got no answer, %s is the program's first", (_, blindFence, beats) => {
  const claim = opened({ blindFence });
  const noted = notes();
  const seen = beats.map((latestHeartbeatAt, at) => {
    noted.saw(claim, view("active", at, { latestHeartbeatAt }));
    return claim.firstBeatSeen;
  });
  expect(seen).toEqual([false, false, true]);
  expect(claim.blindFence).toBeNull();
});
