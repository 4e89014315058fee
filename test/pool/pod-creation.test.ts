import { expect, test } from "vitest";
import { QuotaDoubt } from "../../src/pool/pod-creation.ts";

test("reports a quota that refuses once, and again after the pause", () => {
  const doubt = new QuotaDoubt();
  expect(doubt.refused(1_000, 0)).toBe(false);
  expect(doubt.refused(6_000, 6_000)).toBe(true);
  expect(doubt.refused(6_001, 16_000)).toBe(true);
});

test("counts the refusals of one batch as one", () => {
  const doubt = new QuotaDoubt();
  expect(doubt.refused(1_000, 0)).toBe(false);
  expect(doubt.refused(1_010, 6_000)).toBe(false);
});

test("starts again after all wanted Pods have been created", () => {
  const doubt = new QuotaDoubt();
  doubt.refused(1_000, 0);
  doubt.refused(6_000, 6_000);
  doubt.granted();
  doubt.satisfied();
  expect(doubt.refused(20_000, 16_000)).toBe(false);
  expect(doubt.refused(26_000, 26_000)).toBe(true);
});

test("reports a quota that alternates between refusing and admitting after 15 s", () => {
  const doubt = new QuotaDoubt();
  const told = [0, 5_000, 10_000, 15_000, 20_000].map((atMs) => {
    doubt.granted();
    return doubt.refused(atMs, 0);
  });
  expect(told).toEqual([false, false, false, true, true]);
  doubt.satisfied();
  doubt.granted();
  expect(doubt.refused(25_000, 0)).toBe(false);
});
