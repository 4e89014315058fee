import { describe, expect, test } from "vitest";
import { ApiError } from "../../../simulator/errors.ts";
import { json } from "../../../simulator/http.ts";
import { RateLimit } from "../../../simulator/rate-limit.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { Budget, DEFAULT_BUDGET_LIMITS } from "../../../src/work/budget.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
/** The maximum that jitter adds to a pause (factor), and that a request adds (ms). */
const SLACK = 1.1;
const REQUEST = 200;

/** An Environment whose group has `others` more members, all idle, with one request a minute each. */
function idle(others: number, options: LoopWorldOptions = {}) {
  const clock = new VirtualClock();
  // The budget has room for all requests: the test is about the pace, not the budget's queue.
  const budget = new Budget({ clock, limits: { initialRate: 20, burstSeconds: 1_000 } });
  const world = new LoopWorld({ ...options, clock, budget });
  const stopped = new AbortController();
  const ask = () => {
    for (let other = 0; other < others; other += 1) void budget.acquire(`other-${other}`);
    if (!stopped.signal.aborted) clock.setTimer(ask, MINUTE);
  };
  ask();
  world.createEnvironment();
  world.startOperator();
  const requests = (call: string) => world.api.requests.get(call) ?? 0;
  /** The number of requests of one kind in this time. */
  const sent = async (call: string, ms: number) => {
    const before = requests(call);
    await world.pass(ms);
    return requests(call) - before;
  };
  return { world, budget, sent, requests };
}

const claimed = (world: LoopWorld, id: string) => world.item(id).acks.length > 0;

describe("an Environment whose queue has long been empty", () => {
  test("polls every second while it is alone, and reads statistics once a minute", async () => {
    const { world, sent } = idle(0);
    await world.pass(10 * MINUTE);
    const polls = await sent("poll", 10 * MINUTE);
    expect(polls / 10).toBeGreaterThan(54);
    expect(polls / 10).toBeLessThan(62);
    expect(await sent("stats", 10 * MINUTE)).toBeLessThanOrEqual(12);
  });

  test("slows down in a group of a hundred, so that the group requests at most half of the rate", async () => {
    const { world, budget, sent } = idle(99);
    await world.pass(10 * MINUTE);
    const polls = await sent("poll", 10 * MINUTE);
    expect(budget.rate).toBe(20);
    expect(polls / 10).toBeGreaterThan(4);
    expect(polls / 10).toBeLessThan(7);
  });

  test("detects work within the longest pause in a group of more than a thousand", async () => {
    const { world } = idle(1_100);
    await world.pass(15 * MINUTE);
    for (const afterMs of [1 * SECOND, 20 * SECOND, 44 * SECOND]) {
      await world.pass(10 * MINUTE + afterMs);
      const id = world.enqueue();
      await world.until("the item is claimed", () => claimed(world, id), DEFAULT_TIMING.idleMaxMs * SLACK + REQUEST);
    }
    expect(world.violations).toEqual([]);
  });

  test("polls without a pause again from the first item on", async () => {
    const { world, sent } = idle(1_100, { sessions: { warm: 4, maxConcurrent: 8 } });
    await world.pass(20 * MINUTE);
    expect(await sent("poll", MINUTE)).toBeLessThanOrEqual(2);
    const first = world.enqueue();
    await world.until("the first item is claimed", () => claimed(world, first), 2 * MINUTE);
    const second = world.enqueue();
    await world.until("the second item is claimed at once", () => claimed(world, second), SECOND);
    expect(await sent("poll", 20 * SECOND)).toBeGreaterThan(15);
  });

  test("without warm Pods, reads statistics at the pace of polls, and polls as soon as they show an item", async () => {
    const { world, sent } = idle(99, { sessions: { warm: 0 }, prepareMs: () => 500 });
    await world.pass(10 * MINUTE);
    expect(await sent("poll", 5 * MINUTE)).toBe(0);
    const readings = await sent("stats", 5 * MINUTE);
    expect(readings / 5).toBeGreaterThan(5);
    expect(readings / 5).toBeLessThan(7);
    const id = world.enqueue();
    await world.until("the item is claimed", () => claimed(world, id), 10 * SECOND * SLACK + 2 * SECOND);
  });

  test("reads statistics again as soon as the last free Pod is gone", async () => {
    const { world, requests } = idle(0, { sessions: { warm: 1, maxConcurrent: 1 } });
    await world.pass(20 * MINUTE);
    const before = requests("stats");
    // Claiming is paused: polls no longer report the state of the queue.
    world.patchEnvironment({ spec: { paused: true } });
    await world.until("statistics are read", () => requests("stats") > before, 5 * SECOND);
    const readings = requests("stats");
    await world.pass(MINUTE);
    expect(requests("stats") - readings).toBeGreaterThan(8);
  });
});

describe("a Work API that limits the rate", () => {
  test("makes the operator halve its rate; every item is served once, and no lease or claim is lost", async () => {
    const clock = new VirtualClock();
    const budget = new Budget({ clock });
    const world = new LoopWorld({ clock, budget, sessions: { warm: 3, maxConcurrent: 6 } });
    const limit = new RateLimit(60, clock.now());
    let refused = 0;
    let lowest = budget.rate;
    world.api.answer = (call, request) => {
      const waitSeconds = request.method === "GET" ? limit.take(clock.now()) : 0;
      lowest = Math.min(lowest, budget.rate);
      if (waitSeconds === 0) return undefined;
      refused += 1;
      const error = new ApiError(429, "rate_limit_error", `too many requests: ${call}`);
      return { ...json(error.status, error.body), headers: { "retry-after": String(waitSeconds) } };
    };
    world.createEnvironment();
    world.startOperator();
    for (let item = 0; item < 40; item += 1) world.enqueue();
    await world.until("all items are served and settled", () => world.isSettled, 60 * MINUTE);
    expect(refused).toBeGreaterThan(0);
    expect(lowest).toBeLessThanOrEqual(DEFAULT_BUDGET_LIMITS.initialRate / 2);
    expect(world.items.map(({ acks }) => acks.length)).toEqual(Array(40).fill(1));
    expect([...world.wrongs, ...world.violations]).toEqual([]);
    expect(world.items.every(({ stoppedBy }) => stoppedBy?.as === "sessions-token")).toBe(true);
  });
});
