import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { SessionContext } from "../../src/sessions/context.ts";
import { RefusedItems } from "../../src/sessions/refused-items.ts";
import { DEFAULT_TIMING } from "../../src/sessions/timing.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** An Environment in a group that asks for so long a pause between two calls of an idle member. */
function make(idleIntervalMs: number) {
  const clock = new VirtualClock();
  const lists: number[] = [];
  const list = () => {
    lists.push(clock.monotonic());
    return Promise.resolve({ value: { items: [], nextPage: null } });
  };
  const context = {
    ...{ clock, timing: DEFAULT_TIMING, points: NO_POINTS, logger: silentLogger, random: () => 0.5 },
    work: () => ({ idleIntervalMs, list }),
  } as unknown as SessionContext;
  const signal = new AbortController();
  const startMs = clock.monotonic();
  const running = new RefusedItems(context).run(signal.signal, async () => {});
  return { clock, signal, running, looks: () => lists.map((ms) => ms - startMs) };
}

test("items that were left half refused are looked for at once, and once, where few share the budget", async () => {
  const { clock, signal, running, looks } = make(DEFAULT_TIMING.pollIdleGapMs);
  await clock.advance(600_000);
  expect(looks()).toEqual([0]);
  signal.abort();
  await running;
});

test("where many share the budget the look comes within the pause that the group asks for", async () => {
  const { clock, signal, running, looks } = make(100_000);
  await clock.advance(600_000);
  expect(looks()).toEqual([50_000]);
  signal.abort();
  await running;
});

test("the wait for it ends with the loop", async () => {
  const { clock, signal, running, looks } = make(100_000);
  await clock.settle();
  signal.abort();
  await running;
  expect(looks()).toEqual([]);
  expect(clock.pendingTimers).toBe(0);
});
