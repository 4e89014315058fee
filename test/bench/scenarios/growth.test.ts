import { describe, expect, test } from "vitest";
import { growthExponent } from "../../../bench/scenarios/many-environments/growth.ts";

const SIZES = [10, 100, 1_000, 10_000];

describe("the growth exponent", () => {
  test.each([
    ["a constant cost", (x: number) => 5 + 0 * x, 0],
    ["a linear cost", (x: number) => 3 * x, 1],
    ["a quadratic cost", (x: number) => 0.01 * x * x, 2],
  ])("of %s", (_name, cost, exponent) => {
    expect(growthExponent(SIZES.map((x) => ({ x, y: cost(x) })))).toBeCloseTo(exponent);
  });

  test("reveals a single size at which the cost grows faster", () => {
    const points = SIZES.map((x) => ({ x, y: x === 10_000 ? 30 * x : x }));
    expect(growthExponent(points)).toBeGreaterThan(1.4);
  });

  test("is NaN for fewer than two usable points", () => {
    expect(growthExponent([])).toBeNaN();
    expect(growthExponent([{ x: 10, y: 3 }])).toBeNaN();
    const lost = [
      { x: 10, y: -1 },
      { x: 100, y: 0 },
      { x: 1_000, y: 5 },
    ];
    expect(growthExponent(lost)).toBeNaN();
  });
});
