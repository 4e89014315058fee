import { expect, onTestFinished, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { WaitingSessions } from "../../src/queue/waiting-sessions.ts";
import type { WorkApiClient } from "../../src/work/client.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** A queue with these sessions' items, and what is known of it. The list has `pages` pages; null: it fails. */
function queueOf(...sessions: string[]) {
  const clock = new VirtualClock();
  const queue = { sessions: new Set(sessions), pages: 1 as number | null };
  const made = { lists: 0, changes: 0 };
  const list = async ({ page = "1" }: { page?: string }) => {
    if (queue.pages === null) throw new Error("no list");
    if (page === "1") made.lists += 1;
    const items = [...queue.sessions].map((id) => ({ id: `item of ${id}`, state: "queued", data: { id } }));
    const nextPage = Number(page) < queue.pages ? String(Number(page) + 1) : null;
    return { value: { items, unreadable: [], nextPage } };
  };
  const waiting = new WaitingSessions({
    context: {
      ...{ clock, random: () => 0, points: NO_POINTS, timing: DEFAULT_TIMING },
      work: () => ({ list }) as unknown as WorkApiClient,
    },
    health: { attempt: () => ({ answered: () => {}, failed: () => 10 * SECOND }) },
    onChange: () => {
      made.changes += 1;
    },
  });
  const ending = new AbortController();
  onTestFinished(() => ending.abort());
  void waiting.run(ending.signal, async () => {});
  /** Asks for each, and returns the answers after the next reading. */
  const answers = async (...ids: string[]) => {
    for (const id of ids) waiting.waits(id);
    await clock.advance(3 * SECOND);
    return ids.map((id) => waiting.waits(id));
  };
  return Object.assign(made, { waiting, clock, queue, answers });
}

test("the list is read only after a question, and says whose items wait", async () => {
  const made = queueOf("a");
  await made.clock.advance(MINUTE);
  expect(made.lists).toBe(0);
  expect([made.waiting.waits("a"), made.waiting.waits("b")]).toEqual([null, null]);
  expect(await made.answers("a", "b")).toEqual([true, false]);
  expect(made).toMatchObject({ lists: 1, changes: 1 });
});

test("an item that waits is known for a minute, and that there is none for ten seconds", async () => {
  const { waiting, clock, answers } = queueOf("a");
  await answers("a");
  await clock.advance(6 * SECOND);
  expect([waiting.waits("a"), waiting.waits("b")]).toEqual([true, false]);
  await clock.advance(MINUTE - 10 * SECOND);
  expect(waiting.waits("a")).toBe(true);
  await clock.advance(2 * SECOND);
  expect(waiting.waits("a")).toBeNull();
});

test("finds an item of any of some sessions without a look at sessions that the list does not show", async () => {
  const { waiting, answers, clock } = queueOf("a", "b");
  const asked: string[] = [];
  const waitsAny = (one: string) => waiting.waitsAny((id) => asked.push(id) > 0 && id === one);
  // The first question is open, and nothing else asks.
  expect(waitsAny("b")).toBe(false);
  await clock.advance(3 * SECOND);
  expect([waitsAny("b"), waitsAny("asleep"), asked]).toEqual([true, false, ["a", "b", "a", "b"]]);
  waiting.served("b");
  expect(waitsAny("b")).toBe(false);
  await answers();
  expect(waitsAny("b")).toBe(true);
});

test("statistics without an item answer every question, and more items than before raise one", async () => {
  const made = queueOf("a");
  expect(made.waiting.waits("b")).toBeNull();
  made.waiting.noteStats({ depth: 0, pending: 0 }, made.clock.monotonic());
  expect([made.waiting.waits("b"), made.changes]).toEqual([false, 1]);
  made.waiting.noteStats({ depth: 0, pending: 1 }, made.clock.monotonic());
  expect([made.waiting.waits("b"), made.changes]).toEqual([null, 2]);
  await made.answers("b");
  made.waiting.noteStats({ depth: 1, pending: 0 }, made.clock.monotonic());
  expect(made.waiting.waits("b")).toBe(false);
  made.waiting.noteStats({ depth: 1, pending: 1 }, made.clock.monotonic());
  expect(made.waiting.waits("b")).toBeNull();
});

test("an item that was served no longer waits, and another may", async () => {
  const { waiting, queue, answers } = queueOf("a");
  expect(await answers("a")).toEqual([true]);
  waiting.served("a");
  queue.sessions.clear();
  expect(waiting.waits("a")).toBeNull();
  expect(await answers("a")).toEqual([false]);
});

test("a list that is too long shows whose items wait, and hides whose don't", async () => {
  const { waiting, queue, answers, clock } = queueOf("a");
  queue.pages = 11;
  expect(await answers("a", "b")).toEqual([true, null]);
  expect(waiting.isBlind).toBe(false);
  for (let n = 0; n < 3; n += 1) {
    await clock.advance(20 * SECOND);
    waiting.waits("b");
  }
  expect(waiting.isBlind).toBe(true);
});

test("a page costs a pause of two seconds", async () => {
  const made = queueOf("a");
  made.queue.pages = 5;
  await made.answers("b");
  for (let n = 0; n < 60; n += 1) {
    made.waiting.noteStats({ depth: n, pending: 1 }, 0);
    made.waiting.waits("b");
    await made.clock.advance(SECOND);
  }
  expect(made.lists).toBeLessThanOrEqual(7);
  expect(made.lists).toBeGreaterThan(4);
});

test("a list that fails is read again, and counts as blind after a minute of questions", async () => {
  const made = queueOf("a");
  made.queue.pages = null;
  made.waiting.waits("a");
  await made.clock.advance(59 * SECOND);
  expect([made.waiting.waits("a"), made.waiting.isBlind]).toEqual([null, false]);
  await made.clock.advance(SECOND);
  expect(made.waiting.isBlind).toBe(true);
  // A question long after the last one is a new one.
  await made.clock.advance(10 * MINUTE);
  expect([made.waiting.waits("a"), made.waiting.isBlind]).toEqual([null, false]);
  made.queue.pages = 1;
  await made.clock.advance(11 * SECOND);
  expect(made.waiting.waits("a")).toBe(true);
});
