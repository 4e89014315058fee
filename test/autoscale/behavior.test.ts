import { describe, expect, test } from "vitest";
import { scaleDownLimit, scaleUpLimit, stabilized } from "../../src/autoscale/behavior.ts";
import type { Recommendation, ScaleEvent, ScaleHistory } from "../../src/autoscale/scale-history.ts";
import { behaviorOf, EMPTY, type Policy, percent, pods } from "./scale-inputs.ts";

/** Later than every entry of the histories below. */
const NOW_MS = 10_000_000;
const SECOND_MS = 1_000;
const MINUTE = 60;

/**
 * Changes spread evenly over the last two minutes, each in the middle of its part, as in the controller's own tests.
 */
function overTwoMinutes(...changes: number[]): ScaleEvent[] {
  const part = 120 / changes.length;
  return changes.map((change, at) => ({ change, atMs: NOW_MS - Math.trunc(120 - part * (at + 0.5)) * SECOND_MS }));
}

const recommended = (...entries: [replicas: number, secondsAgo: number][]): ScaleHistory => ({
  ...EMPTY,
  recommendations: entries.map(
    ([replicas, secondsAgo]): Recommendation => ({ replicas, atMs: NOW_MS - secondsAgo * SECOND_MS }),
  ),
});

interface RateCase {
  readonly name: string;
  readonly current: number;
  readonly policies: Policy[];
  readonly selectPolicy?: "Max" | "Min" | "Disabled";
  readonly ups?: ScaleEvent[];
  readonly downs?: ScaleEvent[];
  readonly limit: number;
}

// Expected values of the HPA controller (TestScalingWithRules of Kubernetes 1.36, and its documentation), except from
// zero, where the HPA does nothing.
describe("scaleUpLimit", () => {
  const cases: RateCase[] = [
    { name: "one Pod a minute", current: 3, policies: [pods(1, 60)], limit: 4 },
    { name: "the Pods policy allows more", current: 10, policies: [pods(100, 60), percent(100, 60)], limit: 110 },
    { name: "the percent policy allows more", current: 10, policies: [pods(2, 60), percent(100, 60)], limit: 20 },
    { name: "200 percent", current: 10, policies: [percent(200, 60)], limit: 30 },
    { name: "ten thousand percent", current: 10, policies: [percent(10_000, 60)], limit: 1_010 },
    { name: "a small percentage is rounded up", current: 3, policies: [percent(5, 60)], limit: 4 },
    { name: "from zero, a percentage allows one", current: 0, policies: [percent(100, 60)], limit: 1 },
    {
      name: "from zero, Min selects the one of a percentage",
      current: 0,
      policies: [pods(4, 60), percent(100, 60)],
      selectPolicy: "Min",
      limit: 1,
    },
    {
      name: "Min selects the smallest change",
      current: 10,
      policies: [pods(2, 60), percent(100, 60)],
      selectPolicy: "Min",
      limit: 12,
    },
    { name: "Disabled", current: 10, policies: [percent(100, 60)], selectPolicy: "Disabled", limit: 10 },
    {
      name: "additions in the period count (100 - 15 + 150)",
      current: 100,
      policies: [pods(150, 120)],
      ups: overTwoMinutes(1, 5, 9),
      limit: 235,
    },
    {
      name: "additions in the period count for percent ((100 - 15) + 200%)",
      current: 100,
      policies: [percent(200, 120)],
      ups: overTwoMinutes(1, 5, 9),
      limit: 255,
    },
    {
      name: "additions before the period do not count (only 9 in the last minute)",
      current: 100,
      policies: [pods(20, 40)],
      ups: overTwoMinutes(1, 5, 9),
      limit: 111,
    },
    {
      name: "an exceeded policy does not shrink the count",
      current: 100,
      policies: [pods(5, 120)],
      ups: overTwoMinutes(1, 5, 9),
      limit: 100,
    },
    {
      name: "removals in the period give room ((6 - 4 + 2) + 300%)",
      current: 6,
      policies: [percent(300, 300)],
      ups: overTwoMinutes(4),
      downs: overTwoMinutes(2),
      limit: 16,
    },
  ];
  test.each(cases)("$name", ({ current, policies, selectPolicy = "Max", ups = [], downs = [], limit }) => {
    const { scaleUp } = behaviorOf({ scaleUp: { policies, selectPolicy } });
    expect(scaleUpLimit(current, { recommendations: [], ups, downs }, scaleUp, NOW_MS)).toBe(limit);
  });

  test("without policies, as by default, there is no limit", () => {
    const { scaleUp, scaleDown } = behaviorOf({});
    expect(scaleUpLimit(0, EMPTY, scaleUp, NOW_MS)).toBe(Number.POSITIVE_INFINITY);
    expect(scaleDownLimit(10, EMPTY, scaleDown, NOW_MS)).toBe(0);
    const disabled = behaviorOf({ scaleUp: { selectPolicy: "Disabled" }, scaleDown: { selectPolicy: "Disabled" } });
    expect(scaleUpLimit(10, EMPTY, disabled.scaleUp, NOW_MS)).toBe(10);
    expect(scaleDownLimit(10, EMPTY, disabled.scaleDown, NOW_MS)).toBe(10);
  });

  test("does not round up an exact percentage because of binary fractions", () => {
    const { scaleUp } = behaviorOf({ scaleUp: { policies: [percent(10, 60)] } });
    expect(100 * (1 + 10 / 100)).toBeGreaterThan(110);
    expect(scaleUpLimit(100, EMPTY, scaleUp, NOW_MS)).toBe(110);
  });
});

describe("scaleDownLimit", () => {
  const cases: RateCase[] = [
    { name: "the Pods policy allows more", current: 100, policies: [pods(20, 60), percent(1, 60)], limit: 80 },
    { name: "the percent policy allows more", current: 100, policies: [pods(2, 60), percent(10, 60)], limit: 90 },
    { name: "everything at once", current: 100, policies: [percent(100, 15)], limit: 0 },
    { name: "never below zero", current: 10, policies: [pods(100, 60)], limit: 0 },
    { name: "never below zero by percent", current: 10, policies: [percent(1_000, 120)], limit: 0 },
    {
      name: "Min selects the smallest change",
      current: 100,
      policies: [pods(2, 60), percent(10, 60)],
      selectPolicy: "Min",
      limit: 98,
    },
    { name: "Disabled", current: 10, policies: [percent(100, 60)], selectPolicy: "Disabled", limit: 10 },
    {
      name: "removals in the period count ((100 + 12) - 50%)",
      current: 100,
      policies: [percent(50, 120)],
      downs: overTwoMinutes(2, 4, 6),
      limit: 56,
    },
    {
      name: "an exceeded policy does not grow the count (100 + 15 - 5)",
      current: 100,
      policies: [pods(5, 120)],
      downs: overTwoMinutes(1, 5, 9),
      limit: 100,
    },
    {
      name: "an exceeded percent policy does not grow the count ((100 + 30) - 10%)",
      current: 100,
      policies: [percent(10, 120)],
      downs: overTwoMinutes(10, 10, 10),
      limit: 100,
    },
    {
      name: "additions in the period give room ((10 - 2 + 4) - 50%)",
      current: 10,
      policies: [percent(50, 180)],
      ups: overTwoMinutes(2),
      downs: overTwoMinutes(4),
      limit: 6,
    },
    {
      name: "the documentation's 72 replicas: 10% are 7.2, and 8 are removed",
      current: 72,
      policies: [pods(4, 60), percent(10, 60)],
      limit: 64,
    },
    {
      name: "an exact percentage is not rounded because of binary fractions (controller: 9)",
      current: 100,
      policies: [percent(90, 60)],
      limit: 10,
    },
  ];
  test.each(cases)("$name", ({ current, policies, selectPolicy = "Max", ups = [], downs = [], limit }) => {
    const { scaleDown } = behaviorOf({ scaleDown: { policies, selectPolicy } });
    expect(scaleDownLimit(current, { recommendations: [], ups, downs }, scaleDown, NOW_MS)).toBe(limit);
  });
});

// Expected values of TestNormalizeDesiredReplicasWithBehavior in Kubernetes 1.36.
describe("stabilization", () => {
  test.each([
    ["no earlier recommendation", [], 100, 5, 0, 0, 5],
    [
      "down: the highest in the window",
      [
        [4, 120],
        [5, 60],
      ],
      100,
      3,
      0,
      3 * MINUTE,
      5,
    ],
    [
      "up: the lowest in the window",
      [
        [4, 120],
        [5, 60],
      ],
      1,
      7,
      5 * MINUTE,
      0,
      4,
    ],
    [
      "down without a window: at once",
      [
        [1, 120],
        [2, 60],
      ],
      100,
      3,
      5 * MINUTE,
      0,
      3,
    ],
    [
      "up without a window: at once",
      [
        [4, 120],
        [5, 60],
      ],
      1,
      3,
      0,
      5 * MINUTE,
      3,
    ],
    [
      "down: entries older than the window are ignored",
      [
        [10, 600],
        [9, 540],
        [5, 120],
        [4, 60],
      ],
      100,
      3,
      0,
      180,
      5,
    ],
    [
      "up: entries older than the window are ignored",
      [
        [1, 6_000],
        [9, 180],
        [5, 120],
        [6, 60],
      ],
      1,
      100,
      300,
      0,
      5,
    ],
    [
      "no step up while the demand falls",
      [
        [2, 6_000],
        [3, 180],
      ],
      2,
      1,
      300,
      300,
      2,
    ],
    [
      "no step down while the demand grows",
      [
        [2, 6_000],
        [1, 180],
      ],
      2,
      3,
      300,
      300,
      2,
    ],
  ] as [string, [number, number][], number, number, number, number, number][])(
    "%s",
    (_name, before, current, desired, up, down, expected) => {
      const behavior = behaviorOf({
        scaleUp: { stabilizationWindowSeconds: up },
        scaleDown: { stabilizationWindowSeconds: down },
      });
      expect(stabilized(current, desired, recommended(...before), behavior, NOW_MS)).toBe(expected);
    },
  );

  test("a recommendation leaves the window at the exact end of its time", () => {
    const behavior = behaviorOf({ scaleDown: { stabilizationWindowSeconds: 300 } });
    expect(stabilized(10, 1, recommended([10, 300]), behavior, NOW_MS - 1)).toBe(10);
    expect(stabilized(10, 1, recommended([10, 300]), behavior, NOW_MS)).toBe(1);
  });
});
