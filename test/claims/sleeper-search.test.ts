import { expect, test } from "vitest";
import { SleeperSearch } from "../../src/claims/sleeper-search.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SECOND = 1_000;

function searching() {
  const clock = new VirtualClock();
  const queue = { isAwaited: true };
  return { clock, queue, search: new SleeperSearch(clock, () => queue.isAwaited) };
}

test("polls go on every 200 ms until no sleeping session's item is awaited", async () => {
  const { clock, queue, search } = searching();
  queue.isAwaited = false;
  expect(search.nextPauseMs()).toBeNull();
  queue.isAwaited = true;
  expect(search.nextPauseMs()).toBe(200);
  search.passed("one");
  await clock.advance(SECOND);
  search.passed("two");
  expect([search.nextPauseMs(), search.lastsMs]).toEqual([200, SECOND]);
  queue.isAwaited = false;
  expect([search.nextPauseMs(), search.lastsMs]).toEqual([null, 0]);
});

test.each(["an item comes twice", "the queue is empty"])(
  "it ends when %s, and begins again 15 s after it began",
  async (end) => {
    const { clock, search } = searching();
    expect(search.nextPauseMs()).toBe(200);
    search.passed("one");
    await clock.advance(SECOND);
    if (end === "the queue is empty") search.ended();
    else search.passed("one");
    expect(search.nextPauseMs()).toBeNull();
    await clock.advance(14 * SECOND - 1);
    expect(search.nextPauseMs()).toBeNull();
    await clock.advance(1);
    expect(search.nextPauseMs()).toBe(200);
    // What it saw last time is no reason to end.
    search.passed("one");
    expect(search.nextPauseMs()).toBe(200);
  },
);
