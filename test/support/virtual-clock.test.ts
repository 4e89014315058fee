import { expect, test } from "vitest";
import { deadlineSignal, sleep } from "../../src/core/clock.ts";
import { VirtualClock } from "./virtual-clock.ts";

test("timers run in order and on time, also timers that a timer sets", async () => {
  const clock = new VirtualClock();
  const start = clock.monotonic();
  const seen: string[] = [];
  const note = (name: string) => seen.push(`${name}@${clock.monotonic() - start}`);
  clock.setTimer(() => note("b"), 20);
  clock.setTimer(() => {
    note("a");
    clock.setTimer(() => note("c"), 5);
  }, 10);
  clock.setTimer(() => note("never"), 15).cancel();
  await clock.advance(19);
  expect(seen).toEqual(["a@10", "c@15"]);
  await clock.advance(1);
  expect(seen).toEqual(["a@10", "c@15", "b@20"]);
  expect(clock.pendingTimers).toBe(0);
});

test("a loop of sleeps runs all its rounds in one call", async () => {
  const clock = new VirtualClock();
  let rounds = 0;
  const loop = (async () => {
    while (rounds < 5 && (await sleep(clock, 1_000))) rounds += 1;
  })();
  await clock.advance(5_000);
  await loop;
  expect(rounds).toBe(5);
});

test("a deadline aborts on this clock", async () => {
  const clock = new VirtualClock();
  const { signal } = deadlineSignal(clock, 500);
  await clock.advance(499);
  expect(signal.aborted).toBe(false);
  await clock.advance(1);
  expect(signal.aborted).toBe(true);
});

test("a paused process runs no timer; a suspended machine also stops the monotonic clock", async () => {
  const clock = new VirtualClock();
  const [wall, monotonic] = [clock.now(), clock.monotonic()];
  let ran = false;
  clock.setTimer(() => {
    ran = true;
  }, 10);
  clock.pause(5_000);
  await clock.settle();
  expect([ran, clock.now() - wall, clock.monotonic() - monotonic]).toEqual([false, 5_000, 5_000]);
  clock.pause(5_000, { suspended: true });
  expect([clock.now() - wall, clock.monotonic() - monotonic]).toEqual([10_000, 5_000]);
  await clock.advance(0);
  expect(ran).toBe(true);
});
