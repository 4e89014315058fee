import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { burstsOf, isTimely } from "../../demo/arrivals.ts";

describe("bursts for always-on workers", () => {
  test("are 20 s apart, so that workers are seen to go in between", () => {
    expect(burstsOf(0.25)).toEqual({ size: 5, everyMs: 20_000 });
    expect(burstsOf(2)).toEqual({ size: 40, everyMs: 20_000 });
  });

  test("are further apart where a single session is too much", () => {
    expect(burstsOf(0.01)).toEqual({ size: 1, everyMs: 100_000 });
  });

  test("come to the rate that was asked for", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 50, noNaN: true }), (rate) => {
        const { size, everyMs } = burstsOf(rate);
        // Whole sessions: half a one too many or too few in a burst.
        expect(Math.abs(size - (rate * everyMs) / 1_000)).toBeLessThanOrEqual(0.5 + 1e-9);
      }),
    );
  });

  test("come only while they can be served before the end that was asked for", () => {
    expect(isTimely(1e9, undefined)).toBe(true);
    expect(isTimely(20_000, 53_000)).toBe(true);
    expect(isTimely(41_000, 53_000)).toBe(true);
    expect(isTimely(42_000, 53_000)).toBe(false);
  });
});
