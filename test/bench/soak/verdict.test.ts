import { describe, expect, test } from "vitest";
import { BOUNDS, judge, type Rest, slopeOf } from "../../../bench/soak/verdict.ts";
import type { Measure, Vitals } from "../../../bench/soak/vitals.ts";
import { seededRandom } from "../../../simulator/ids.ts";

const MIB = 1_024 ** 2;

const STEADY: Vitals = {
  heapBytes: 30 * MIB,
  rssBytes: 120 * MIB,
  sockets: 14,
  files: 24,
  timers: 80,
  handles: 20,
  entries: 9_000,
  signals: 60,
  environmentSeries: 700,
  otherSeries: 900,
};
const MEASURES = Object.keys(STEADY) as Measure[];

/** Returns `count` rests, a hundred sessions apart. */
function rests(count: number, at: (rest: number) => Partial<Vitals>): Rest[] {
  return Array.from({ length: count }, (_, rest) => ({ sessions: rest * 100, vitals: { ...STEADY, ...at(rest) } }));
}

const grew = (samples: readonly Rest[]) =>
  judge(samples)
    .filter(({ isFlat }) => !isFlat)
    .map(({ measure }) => measure);

describe("a soak's verdict", () => {
  test("is flat for constant and for shrinking measures", () => {
    expect(grew(rests(10, () => ({})))).toEqual([]);
    expect(grew(rests(10, (rest) => ({ heapBytes: (60 - rest) * MIB, sockets: 40 - rest })))).toEqual([]);
  });

  test.each(MEASURES)("finds a leak of %s that exceeds its limit by half over the whole run", (measure) => {
    const { absolute, share } = BOUNDS[measure];
    const leak = 1.5 * Math.max(absolute, share * STEADY[measure]);
    const leaking = rests(10, (rest) => ({ [measure]: STEADY[measure] + (leak * rest) / 9 }));
    expect(grew(leaking)).toEqual([measure]);
  });

  test("finds a small leak in noise that is ten times what leaks between two rests", () => {
    const random = seededRandom(7);
    const noisy = (leakPerRest: number) =>
      rests(40, (rest) => ({ heapBytes: STEADY.heapBytes + leakPerRest * rest + (random() - 0.5) * 2 * MIB }));
    expect(grew(noisy(0.2 * MIB))).toEqual(["heapBytes"]);
    expect(grew(noisy(0))).toEqual([]);
  });

  test("isn't changed by outliers in a quarter of all rests, including the last one", () => {
    const odd = rests(12, (rest) => (rest % 4 === 3 ? { heapBytes: 90 * MIB, sockets: 90, timers: 900 } : {}));
    expect(grew(odd)).toEqual([]);
  });

  test("reports the first value, the last value, and the limit", () => {
    const found = judge(rests(4, (rest) => ({ sockets: 14 + 25 * rest }))).find(({ measure }) => measure === "sockets");
    expect(found).toEqual({ measure: "sockets", first: 14, last: 89, grown: 75, allowed: 32, isFlat: false });
  });

  test("throws for fewer rests than a slope needs", () => {
    expect(() => judge(rests(2, () => ({})))).toThrow(/2 rests are too few to judge growth; at least 3 are needed/);
  });
});

test("the slope is the median of the slopes between all pairs of points", () => {
  const line = [0, 1, 2, 3].map((x) => ({ x, y: 5 + 2 * x }));
  expect(slopeOf(line)).toBe(2);
  expect(slopeOf([...line, { x: 4, y: 1_000 }])).toBe(2);
  expect(
    slopeOf([
      { x: 1, y: 1 },
      { x: 1, y: 9 },
    ]),
  ).toBe(0);
});
