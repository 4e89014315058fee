import { expect, test } from "vitest";
import { realClock, sleep } from "../../../src/core/clock.ts";
import { TroubledClock } from "./clock.ts";

const STILL_MS = 60;

test("timers of a paused process run in order when it resumes, except those that were cancelled", async () => {
  const clock = new TroubledClock();
  const run: string[] = [];
  clock.setTimer(() => run.push("second"), 20);
  clock.setTimer(() => run.push("first"), 5);
  const cancelled = clock.setTimer(() => run.push("cancelled"), 10);
  clock.stand("stopped");
  await sleep(realClock, STILL_MS);
  cancelled.cancel();
  expect(run).toEqual([]);
  clock.goOn();
  expect(run).toEqual(["first", "second"]);
});

test("the monotonic clock of a suspended machine stops, while its wall clock continues", async () => {
  const clock = new TroubledClock();
  const wallMs = clock.now();
  clock.stand("suspended");
  const stillMs = clock.monotonic();
  await sleep(realClock, STILL_MS);
  expect(clock.monotonic()).toBe(stillMs);
  expect(clock.now()).toBeGreaterThan(wallMs);
  clock.goOn();
  // It never catches up.
  expect(realClock.monotonic() - clock.monotonic()).toBeGreaterThanOrEqual(STILL_MS - 1);
});

test("both clocks of a stopped process continue, and the wall clock can be set", async () => {
  const clock = new TroubledClock();
  clock.stand("stopped");
  const before = clock.monotonic();
  await sleep(realClock, STILL_MS);
  clock.goOn();
  expect(clock.monotonic() - before).toBeGreaterThanOrEqual(STILL_MS - 1);
  clock.setWall(-3_600_000);
  expect(clock.now()).toBeLessThan(realClock.now() - 3_500_000);
});

test("the wall clock is never set back after a suspension, and a machine with a fast clock is not suspended", () => {
  const clock = new TroubledClock();
  expect([clock.mayBeSet(-1), clock.mayStand("suspended")]).toEqual([true, true]);
  clock.setWall(1);
  expect([clock.mayStand("suspended"), clock.mayStand("stopped")]).toEqual([false, true]);
  clock.setWall(0);
  clock.stand("suspended");
  clock.goOn();
  expect([clock.mayBeSet(-1), clock.mayBeSet(0), clock.mayBeSet(1)]).toEqual([false, true, true]);
});
