import { describe, expect, test } from "vitest";
import { decideScale } from "../../src/autoscale/decide-scale.ts";
import { startHistory } from "../../src/autoscale/scale-history.ts";
import { Play } from "./decision-loop.ts";
import { behaviorOf, EMPTY, inputOf, percent, pods } from "./scale-inputs.ts";

const AT_ONCE = { stabilizationWindowSeconds: 0 };
const STALE = { kind: "unknown", reason: "DemandStale", message: "statistics were last read 90 s ago" } as const;

const HPA_PACE = behaviorOf({ scaleUp: { policies: [percent(100, 15), pods(4, 15)] } });

describe("by default", () => {
  test("a burst of ten items gets all eight workers that maxReplicas allows at the first reading", () => {
    const play = new Play({ current: 0, max: 8, behavior: behaviorOf({}) });
    expect(play.step(0, 10)).toMatchObject({ replicas: 8, wanted: 10, reason: "TooManyReplicas" });
  });

  test("all workers go after five minutes without demand, in one step", () => {
    const play = new Play({ current: 200, behavior: behaviorOf({}) });
    expect(play.steps(20, 15, 0)).toEqual([...Array(19).fill(200), 0]);
  });
});

// The examples and values of the HorizontalPodAutoscaler's documentation and of KEP-853.
describe("the documented examples", () => {
  test("80 replicas to 10, by 4 Pods or 10 percent a minute: first by tenths, then by four", () => {
    const scaleDown = { ...AT_ONCE, policies: [pods(4, 60), percent(10, 60)] };
    const play = new Play({ current: 80, behavior: behaviorOf({ scaleDown }) });
    expect(play.steps(14, 60, 10)).toEqual([72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16, 12, 10]);
  });

  test("evaluating four times a minute removes the same number a minute", () => {
    const scaleDown = { ...AT_ONCE, policies: [pods(4, 60), percent(10, 60)] };
    const play = new Play({ current: 80, behavior: behaviorOf({ scaleDown }) });
    expect(play.steps(9, 15, 10)).toEqual([72, 72, 72, 72, 64, 64, 64, 64, 57]);
  });

  test("selectPolicy Min selects the smaller change", () => {
    const scaleDown = { ...AT_ONCE, policies: [pods(5, 60), percent(10, 60)], selectPolicy: "Min" as const };
    const play = new Play({ current: 100, behavior: behaviorOf({ scaleDown }) });
    expect(play.steps(3, 60, 10)).toEqual([95, 90, 85]);
    play.current = 30;
    expect(play.step(60, 10).replicas).toBe(27);
  });

  test("900 percent a minute: 1, 10, 100, 1000", () => {
    const behavior = behaviorOf({ scaleUp: { policies: [percent(900, 60)] } });
    expect(new Play({ current: 1, behavior }).steps(3, 60, 5_000)).toEqual([10, 100, 1000]);
  });

  test("one Pod in ten minutes, after a stabilization of five", () => {
    const behavior = behaviorOf({ scaleDown: { policies: [pods(1, 600)] } });
    const play = new Play({ current: 1000, behavior });
    expect(play.steps(4, 60, 5)).toEqual([1000, 1000, 1000, 1000]);
    expect(play.steps(11, 60, 5)).toEqual([999, 999, 999, 999, 999, 999, 999, 999, 999, 999, 998]);
  });

  test("one Pod in five minutes upward", () => {
    const behavior = behaviorOf({ scaleUp: { policies: [pods(1, 300)] } });
    expect(new Play({ current: 1, behavior }).steps(3, 300, 50)).toEqual([2, 3, 4]);
  });

  test("with scale-down disabled, scales up as usual and never down", () => {
    const behavior = behaviorOf({ scaleDown: { selectPolicy: "Disabled" } });
    const play = new Play({ current: 4, behavior });
    expect(play.step(15, 8).replicas).toBe(8);
    expect(play.steps(3, 600, 0)).toEqual([8, 8, 8]);
    expect(play.step(600, 0)).toMatchObject({ reason: "ScaleDownLimit" });
  });

  test("the highest value of ten minutes is kept, and then dropped", () => {
    const scaleDown = { stabilizationWindowSeconds: 600, policies: [pods(5, 60)] };
    const play = new Play({ current: 10, behavior: behaviorOf({ scaleDown }) });
    const told = [9, 8, 9, 9, 8, 9, 8, 9, 8].map((demand) => play.step(60, demand));
    expect(told.map(({ replicas }) => replicas)).toEqual([10, 10, 10, 10, 10, 10, 10, 10, 10]);
    expect(told.at(-1)?.reason).toBe("ScaleDownStabilized");
    expect(play.step(60, 7).replicas).toBe(9);
  });

  test("ignores a spike shorter than the scale-up window", () => {
    const scaleUp = { stabilizationWindowSeconds: 300, policies: [pods(20, 60)] };
    // A little less than a minute, so that the first reading is still within the five minutes.
    const play = new Play({ current: 2, behavior: behaviorOf({ scaleUp }) });
    const told = [3, 19, 10, 3, 4].map((demand) => play.step(59, demand));
    expect(told.map(({ replicas }) => replicas)).toEqual([2, 2, 2, 2, 2]);
    expect(told.at(-1)?.reason).toBe("ScaleUpStabilized");
    expect(play.step(59, 7).replicas).toBe(3);
  });

  test("doubling or adding four in 15 s, the pace of an HPA", () => {
    const play = new Play({ current: 0, behavior: HPA_PACE });
    expect(play.steps(8, 15, 200)).toEqual([4, 8, 16, 32, 64, 128, 200, 200]);
  });

  test("readings more frequent than the period add no more than the policy allows", () => {
    const play = new Play({ current: 0, behavior: HPA_PACE });
    expect(play.steps(7, 5, 200)).toEqual([4, 4, 4, 8, 8, 8, 16]);
  });
});

describe("bounds", () => {
  test.each([
    ["within", { current: 5, sessions: 7, min: 3, max: 8 }, 7, "DesiredWithinRange"],
    ["below min", { current: 3, sessions: 1, min: 2, max: 8 }, 2, "TooFewReplicas"],
    ["zero, if min is zero", { current: 1, sessions: 0, min: 0, max: 10 }, 0, "DesiredWithinRange"],
    ["above max", { current: 100, sessions: 1_000, min: 100, max: 150 }, 150, "TooManyReplicas"],
    ["max lowered below the count", { current: 20, sessions: 1_000, min: 1, max: 10 }, 10, "TooManyReplicas"],
    ["min raised above the count, with no demand", { current: 0, sessions: 0, min: 3, max: 10 }, 3, "TooFewReplicas"],
    ["faster than allowed", { current: 10, sessions: 50, min: 1, max: 1_000 }, 20, "ScaleUpLimit"],
  ] as const)("%s", (_name, input, replicas, reason) => {
    const behavior = { ...HPA_PACE, scaleDown: behaviorOf({ scaleDown: AT_ONCE }).scaleDown };
    expect(decideScale(inputOf({ ...input, behavior }))).toMatchObject({ replicas, reason });
  });

  test("a lowered max takes effect without stabilization, because a spec is not demand", () => {
    const history = startHistory(20, 0);
    expect(decideScale(inputOf({ current: 20, sessions: 20, max: 10, history }))).toMatchObject({ replicas: 10 });
  });

  test("workers that share sessions need fewer replicas, rounded up", () => {
    const input = inputOf({ current: 0, sessions: 9 });
    expect(decideScale({ ...input, spec: { ...input.spec, sessionsPerReplica: 4 } })).toMatchObject({ wanted: 3 });
  });
});

describe("an unknown demand", () => {
  test("keeps the last size and says why", () => {
    const decision = decideScale({
      ...inputOf({ current: 7, sessions: 0, behavior: behaviorOf({ scaleDown: AT_ONCE }) }),
      demand: STALE,
    });
    expect(decision).toMatchObject({ replicas: 7, wanted: null, reason: "DemandStale" });
    expect(decision.message).toContain("90 s ago");
  });

  test("keeps more than a lowered max, because the busy workers are not known well enough", () => {
    expect(decideScale({ ...inputOf({ current: 7, sessions: 0, max: 2 }), demand: STALE })).toMatchObject({
      replicas: 7,
    });
  });

  test("still allows scaling up to the minimum", () => {
    const decision = decideScale({ ...inputOf({ current: 0, sessions: 0, min: 2 }), demand: STALE });
    expect(decision).toMatchObject({ replicas: 2, wanted: null, reason: "TooFewReplicas" });
  });

  test("records the kept size as a recommendation, so that the window begins when the demand is known again", () => {
    const input = inputOf({ current: 7, sessions: 0, history: startHistory(7, 0) });
    const { stabilizationWindowSeconds } = input.spec.behavior.scaleDown;
    const longMs = 2 * stabilizationWindowSeconds * 1_000;
    const { history } = decideScale({ ...input, demand: STALE, nowMs: longMs });
    const after = decideScale({ ...input, history, nowMs: longMs + 1_000 });
    expect(after).toMatchObject({ replicas: 7, wanted: 0, reason: "ScaleDownStabilized" });
    const later = decideScale({ ...input, history: after.history, nowMs: longMs + stabilizationWindowSeconds * 1_000 });
    expect(later).toMatchObject({ replicas: 0 });
  });
});

describe("deleted workers that finish their sessions", () => {
  test.each([
    ["leave less room to grow", { current: 3, sessions: 20, max: 8, ending: 2 }, 6],
    ["take the room of idle workers", { current: 8, sessions: 20, max: 8, ending: 2 }, 6],
    ["come before the minimum", { current: 0, sessions: 0, min: 3, max: 3, ending: 2 }, 1],
    ["leave none if they are more than the maximum", { current: 0, sessions: 9, min: 1, max: 2, ending: 5 }, 0],
  ])("%s", (_name, input, replicas) => {
    expect(decideScale(inputOf(input))).toMatchObject({ replicas });
  });

  test("are named as the reason for fewer workers", () => {
    expect(decideScale(inputOf({ current: 3, sessions: 20, max: 8, ending: 2 })).message).toBe(
      "maxReplicas is 8, and 2 deleted workers still run",
    );
  });
});

describe("busy workers", () => {
  const fewer = inputOf({ current: 9, sessions: 0, behavior: behaviorOf({ scaleDown: AT_ONCE }) });

  test("are kept, and the idle ones are removed", () => {
    const decision = decideScale({ ...fewer, busy: { kind: "probed", busy: 2, unknown: 1, notReady: 0 } });
    expect(decision).toMatchObject({ replicas: 3, wanted: 0, reason: "WorkersBusy" });
  });

  test("are kept above a lowered max", () => {
    const input = {
      ...inputOf({ current: 9, sessions: 9, max: 2 }),
      busy: { kind: "probed", busy: 5, unknown: 0, notReady: 0 },
    } as const;
    expect(decideScale(input)).toMatchObject({ replicas: 5, reason: "WorkersBusy" });
  });

  test("do not prevent a scale-up", () => {
    const busy = { kind: "probed", busy: 9, unknown: 0, notReady: 9 } as const;
    expect(decideScale({ ...inputOf({ current: 9, sessions: 12 }), busy })).toMatchObject({ replicas: 12 });
  });

  test("prevent any removal while one of them is not Ready", () => {
    const busy = { kind: "probed", busy: 1, unknown: 0, notReady: 1 } as const;
    expect(decideScale({ ...fewer, busy })).toMatchObject({ replicas: 9, reason: "BusyWorkerNotReady" });
  });

  test("are not the reason when a rate keeps more than them", () => {
    const behavior = behaviorOf({ scaleDown: { ...AT_ONCE, policies: [pods(1, 60)] } });
    const busy = { kind: "probed", busy: 2, unknown: 0, notReady: 0 } as const;
    expect(decideScale({ ...inputOf({ current: 9, sessions: 0, behavior }), busy })).toMatchObject({
      replicas: 8,
      reason: "ScaleDownLimit",
    });
  });

  test("prevent any removal without a probe while a session runs, however low the demand is", () => {
    const busy = { kind: "unprobed" } as const;
    const demand = { kind: "known", sessions: 1, running: 1, pending: 0 } as const;
    expect(decideScale({ ...fewer, busy, demand })).toMatchObject({ replicas: 9, reason: "SessionsRunning" });
    const nothing = { kind: "known", sessions: 0, running: 0, pending: 0 } as const;
    expect(decideScale({ ...fewer, busy, demand: nothing })).toMatchObject({ replicas: 0 });
  });
});

describe("a restart", () => {
  test("does not scale down before the window is full again", () => {
    const play = new Play({ current: 50, behavior: behaviorOf({}) });
    expect(play.steps(19, 15, 0)).toEqual(Array(19).fill(50));
    expect(play.step(15, 0).replicas).toBe(0);
  });

  test("follows the current demand without any history", () => {
    expect(decideScale(inputOf({ current: 50, sessions: 1, history: EMPTY }))).toMatchObject({ replicas: 1 });
  });
});
