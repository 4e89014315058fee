import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { burstPlan } from "../../demo/arrivals.ts";

describe("bursts for always-on workers", () => {
  test("are 20 s apart, so that workers are seen to go in between", () => {
    expect(burstPlan(0.25, undefined)).toMatchObject({ size: 5, everySeconds: 20 });
    expect(burstPlan(2, undefined)).toMatchObject({ size: 40, everySeconds: 20 });
  });

  test("are further apart where a single session is too much", () => {
    expect(burstPlan(0.01, undefined)).toMatchObject({ size: 1, everySeconds: 100 });
  });

  test("end early enough to be served before the end that was asked for, and there is one at least", () => {
    const bursts = (arriveMs: number) => burstPlan(0.25, arriveMs).bursts;
    expect([2_500, 13_000, 23_000, 33_000, 53_000, 113_000].map(bursts)).toEqual([1, 1, 1, 2, 3, 6]);
  });

  test("come to the rate that was asked for", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 50, noNaN: true }), (rate) => {
        const { size, everySeconds } = burstPlan(rate, undefined);
        // Whole sessions: half a one too many or too few in a burst.
        expect(Math.abs(size - rate * (everySeconds ?? 0))).toBeLessThanOrEqual(0.5 + 1e-9);
      }),
    );
  });
});
