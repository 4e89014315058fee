import { expect, test } from "vitest";
import { recordRecommendation, recordScale, startHistory } from "../../src/autoscale/scale-history.ts";
import { behaviorOf, EMPTY, percent, pods } from "./scale-inputs.ts";

const behavior = behaviorOf({
  scaleUp: { policies: [pods(1, 60), percent(10, 120)] },
  scaleDown: { policies: [pods(1, 30)], stabilizationWindowSeconds: 300 },
});

test("keeps a change for the longest period of either direction", () => {
  const first = recordScale(EMPTY, { from: 3, to: 5, atMs: 0 }, behavior);
  expect(first.ups).toEqual([{ change: 2, atMs: 0 }]);
  const down = recordScale(first, { from: 5, to: 1, atMs: 119_999 }, behavior);
  expect(down).toMatchObject({ ups: [{ change: 2 }], downs: [{ change: 4 }] });
  expect(recordScale(down, { from: 1, to: 2, atMs: 120_000 }, behavior).ups).toEqual([{ change: 1, atMs: 120_000 }]);
});

test("keeps a removal for a slow scale-down, however short the scale-up periods are", () => {
  const slow = behaviorOf({ scaleUp: { policies: [pods(1, 15)] }, scaleDown: { policies: [pods(1, 600)] } });
  const down = recordScale(EMPTY, { from: 5, to: 4, atMs: 0 }, slow);
  expect(recordScale(down, { from: 4, to: 5, atMs: 599_999 }, slow).downs).toEqual([{ change: 1, atMs: 0 }]);
});

test("records no event without a change", () => {
  expect(recordScale(EMPTY, { from: 3, to: 3, atMs: 0 }, behavior)).toEqual(EMPTY);
});

test("keeps recommendations for the longest window, but only those that can still be the lowest or highest", () => {
  let history = startHistory(5, 0);
  for (const [at, replicas] of [7, 6, 6, 2, 4, 3].entries()) {
    history = recordRecommendation(history, { replicas, atMs: (at + 1) * 1_000 }, behavior);
  }
  expect(history.recommendations.map(({ replicas }) => replicas)).toEqual([7, 6, 2, 4, 3]);
  const later = recordRecommendation(history, { replicas: 3, atMs: 304_500 }, behavior);
  expect(later.recommendations.map(({ replicas }) => replicas)).toEqual([4, 3]);
});

test("stays small for an hour of similar readings each second", () => {
  const hour = behaviorOf({ scaleDown: { stabilizationWindowSeconds: 3_600 } });
  let history = startHistory(5, 0);
  for (let second = 1; second <= 3_600; second += 1) {
    history = recordRecommendation(history, { replicas: 5 + (second % 3), atMs: second * 1_000 }, hour);
  }
  expect(history.recommendations.length).toBeLessThan(10);
});

test("treats a clock that goes back as stopped, and neither drops nor reorders entries", () => {
  const at = recordScale(EMPTY, { from: 0, to: 4, atMs: 50_000 }, behavior);
  expect(recordScale(at, { from: 4, to: 5, atMs: 10_000 }, behavior).ups).toEqual([
    { change: 4, atMs: 50_000 },
    { change: 1, atMs: 50_000 },
  ]);
});

test("never modifies its input", () => {
  const history = Object.freeze({ ...EMPTY, ups: Object.freeze([{ change: 1, atMs: 0 }]) });
  expect(() => recordScale(history, { from: 0, to: 4, atMs: 999_000 }, behavior)).not.toThrow();
  expect(() => recordRecommendation(history, { replicas: 4, atMs: 999_000 }, behavior)).not.toThrow();
});
