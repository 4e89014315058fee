import { expect, test } from "vitest";
import { QuotaDoubt } from "../../src/sessions/quota-doubt.ts";

test("a quota that refuses once, and again after the pause, refuses in earnest", () => {
  const doubt = new QuotaDoubt();
  expect(doubt.refused(1_000, 0)).toBe(false);
  expect(doubt.refused(6_000, 6_000)).toBe(true);
  expect(doubt.refused(6_001, 16_000)).toBe(true);
});

test("refusals of one batch are one", () => {
  const doubt = new QuotaDoubt();
  expect(doubt.refused(1_000, 0)).toBe(false);
  expect(doubt.refused(1_010, 6_000)).toBe(false);
});

test("a Pod that was created in between makes the next refusal the first", () => {
  const doubt = new QuotaDoubt();
  doubt.refused(1_000, 0);
  doubt.refused(6_000, 6_000);
  doubt.granted();
  expect(doubt.refused(20_000, 16_000)).toBe(false);
  expect(doubt.refused(26_000, 26_000)).toBe(true);
});
