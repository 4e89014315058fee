import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { burstsOf, isTimely } from "../../demo/arrivals.ts";

describe("bursts for always-on workers", () => {
  test("are 20 s apart, so that the scale-down in between is visible", () => {
    expect(burstsOf(0.25)).toEqual({ size: 5, everyMs: 20_000 });
    expect(burstsOf(2)).toEqual({ size: 40, everyMs: 20_000 });
  });

  test("are further apart if one session is already too many", () => {
    expect(burstsOf(0.01)).toEqual({ size: 1, everyMs: 100_000 });
  });

  test("average the requested rate", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 50, noNaN: true }), (rate) => {
        const { size, everyMs } = burstsOf(rate);
        // Bursts have whole sessions, so one may be half a session too large or too small.
        expect(Math.abs(size - (rate * everyMs) / 1_000)).toBeLessThanOrEqual(0.5 + 1e-9);
      }),
    );
  });

  test("start only while they can be served before the requested end", () => {
    expect(isTimely(1e9, undefined)).toBe(true);
    expect(isTimely(20_000, 53_000)).toBe(true);
    expect(isTimely(41_000, 53_000)).toBe(true);
    expect(isTimely(42_000, 53_000)).toBe(false);
  });
});
