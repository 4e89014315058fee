import { expect, test } from "vitest";
import { ReportPace } from "../../src/reconcile/report-pace.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

test("reacts at once first, slows to four reconciles a second while changes go on, and is quick again after a quiet second", async () => {
  const clock = new VirtualClock();
  const pace = new ReportPace(clock);
  expect(pace.delayMs).toBe(0);
  const rests: number[] = [];
  for (let look = 0; look < 6; look += 1) {
    pace.looked();
    rests.push(pace.delayMs);
    await clock.advance(pace.delayMs);
    expect(pace.delayMs).toBe(0);
  }
  expect(rests).toEqual([25, 50, 100, 200, 250, 250]);
  await clock.advance(1_000);
  pace.looked();
  expect(pace.delayMs).toBe(25);
});
