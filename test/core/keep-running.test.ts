import { expect, test } from "vitest";
import { keepRunning } from "../../src/core/keep-running.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

test("reports a loop that throws and restarts it after a backoff, until the signal aborts", async () => {
  const clock = new VirtualClock();
  const ending = new AbortController();
  const told: unknown[] = [];
  let begun = 0;
  const loop = async () => {
    begun += 1;
    throw new Error(`turn ${begun}`);
  };
  const backoff = { baseMs: 1_000, maxMs: 60_000 };
  const running = keepRunning(
    loop,
    { clock, random: () => 1, backoff, onError: (error) => told.push(error) },
    ending.signal,
  );
  await clock.advance(0);
  expect(begun).toBe(1);
  await clock.advance(60_000);
  expect(begun).toBeGreaterThan(1);
  // Not a hot loop: each pause is longer than the last one.
  expect(begun).toBeLessThan(10);
  expect(told).toHaveLength(begun);
  ending.abort();
  await running;
});
