import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SimulatorClock, timestamp, timestampUs } from "../../simulator/clock.ts";
import { Deadlines } from "../../simulator/deadlines.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

function start(scale = 1) {
  const base = new VirtualClock();
  const clock = new SimulatorClock(base, scale);
  return { base, clock, deadlines: new Deadlines(clock) };
}

describe("deadlines", () => {
  test("run in the order of their times, then of their creation, unless they're cancelled", async () => {
    const runs = fc.asyncProperty(fc.array(fc.record({ at: fc.nat(50), cancelled: fc.boolean() })), async (entries) => {
      const { base, clock, deadlines } = start();
      const origin = clock.now();
      const ran: number[] = [];
      const made = entries.map((entry, index) => deadlines.at(origin + entry.at, () => ran.push(index)));
      entries.forEach((entry, index) => {
        if (entry.cancelled) made[index]?.cancel();
      });
      expect(base.pendingTimers).toBeLessThanOrEqual(1);
      await base.advance(50);
      const expected = entries
        .map((entry, index) => ({ ...entry, index }))
        .filter((entry) => !entry.cancelled)
        .sort((a, b) => a.at - b.at || a.index - b.index);
      expect(ran).toEqual(expected.map((entry) => entry.index));
    });
    await fc.assert(runs, { numRuns: 50 });
  });

  test("that are created during a run also run", async () => {
    const { base, deadlines } = start();
    const ran: string[] = [];
    deadlines.after(10, () => {
      ran.push("first");
      deadlines.after(0, () => ran.push("at once"));
      deadlines.after(10, () => ran.push("later"));
    });
    await base.advance(10);
    expect(ran).toEqual(["first", "at once"]);
    await base.advance(10);
    expect(ran).toEqual(["first", "at once", "later"]);
  });

  test("continue after one of them throws", async () => {
    const { base, deadlines } = start();
    const ran: string[] = [];
    deadlines.after(10, () => {
      throw new Error("broken");
    });
    deadlines.after(20, () => ran.push("next"));
    await expect(base.advance(10)).rejects.toThrow("broken");
    await base.advance(10);
    expect(ran).toEqual(["next"]);
  });

  test("don't run after close", async () => {
    const { base, deadlines } = start();
    const ran: string[] = [];
    deadlines.after(10, () => ran.push("late"));
    deadlines.close();
    deadlines.after(5, () => ran.push("later"));
    await base.advance(100);
    expect([ran, base.pendingTimers]).toEqual([[], 0]);
  });
});

describe("the simulator's clock", () => {
  test("runs at its scale, and keeps its time when the scale changes", async () => {
    const { base, clock } = start(10);
    const origin = clock.now();
    await base.advance(100);
    expect(clock.now() - origin).toBe(1000);
    clock.rescale(1);
    await base.advance(100);
    expect(clock.now() - origin).toBe(1100);
    expect(clock.monotonic()).toBe(1100);
  });

  test("ignores jumps of the wall clock", async () => {
    const { base, clock } = start();
    const before = clock.now();
    base.jumpWall(-3_600_000);
    expect(clock.now()).toBe(before);
  });

  test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])("rejects a scale of %d", (scale) => {
    expect(() => start(scale)).toThrow(RangeError);
  });

  test("formats times with microseconds", () => {
    expect(timestamp(Date.UTC(2030, 0, 1) + 1.25)).toBe("2030-01-01T00:00:00.001250Z");
    expect(timestampUs(Date.UTC(2030, 0, 1) * 1000 + 7)).toBe("2030-01-01T00:00:00.000007Z");
  });
});
