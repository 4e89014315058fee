import { expect, test } from "vitest";
import { Backoff, backoffCeiling } from "../../src/core/backoff.ts";

const POLICY = { baseMs: 100, maxMs: 1_000 };

test("doubles with every failure, up to its bound", () => {
  const backoff = new Backoff(POLICY, () => 1);
  expect(Array.from({ length: 6 }, () => backoff.next())).toEqual([100, 200, 400, 800, 1_000, 1_000]);
});

test("fixes half of each delay and randomizes the other half", () => {
  expect(new Backoff(POLICY, () => 0).next()).toBe(50);
  expect(new Backoff(POLICY, () => 0.5).next()).toBe(75);
});

test("ends the pause at a success, and starts from the base again", () => {
  const backoff = new Backoff(POLICY, () => 1);
  backoff.next();
  backoff.postpone(10);
  expect([backoff.failures, backoff.untilMs]).toEqual([2, 210]);
  backoff.reset();
  expect([backoff.failures, backoff.untilMs]).toEqual([0, Number.NEGATIVE_INFINITY]);
  expect(backoff.next()).toBe(100);
});

test("keeps its bound after any number of failures", () => {
  expect(backoffCeiling(POLICY, 1_000_000)).toBe(1_000);
  expect(backoffCeiling({ baseMs: 1, maxMs: 100, factor: 10 }, 1)).toBe(10);
});
