import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { SessionContext } from "../../src/sessions/context.ts";
import { RefusedItems } from "../../src/sessions/refused-items.ts";
import { DEFAULT_TIMING } from "../../src/sessions/timing.ts";
import { WorkApiError } from "../../src/work/errors.ts";
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

test("one whose stop is refused for good keeps no other from its stop, and has the list not asked again", async () => {
  const clock = new VirtualClock();
  const stops: string[] = [];
  let lists = 0;
  const items = ["work_gone", "work_b", "work_c"].map((id) => ({
    id,
    state: "starting",
    data: { type: "healthcheck" },
  }));
  const list = async () => {
    lists += 1;
    return { value: { items, nextPage: null } };
  };
  const stop = async (id: string) => {
    stops.push(id);
    if (id !== "work_gone") return;
    throw new WorkApiError({ kind: "not-found", call: "stop", message: "404: no such item", status: 404 });
  };
  const context = {
    ...{ clock, timing: DEFAULT_TIMING, points: NO_POINTS, logger: silentLogger, random: () => 0.5 },
    ...{ guard: () => {}, work: () => ({ idleIntervalMs: 0, list, stop }) },
  } as unknown as SessionContext;
  const signal = new AbortController();
  const running = new RefusedItems(context).run(signal.signal, async () => {});
  await clock.advance(600_000);
  expect(stops).toEqual(["work_gone", "work_b", "work_c"]);
  expect(lists).toBe(1);
  signal.abort();
  await running;
});
