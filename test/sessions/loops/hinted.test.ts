import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { createMetrics } from "../../../src/observe/metrics.ts";
import { EARLY_MS, FRESH_MS, Hints, PROVEN_AFTER } from "../../../src/queue/hints.ts";
import { Budget } from "../../../src/work/budget.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
/** The maximum that jitter adds to a pause (factor), and that a request adds (ms). */
const SLACK = 1.1;
const REQUEST = 200;
/** Polls in ten minutes of an Environment that polls every two seconds; a lower bound. */
const USUAL_POLLS = 250;
/** Statistics of an empty queue. */
const EMPTY = { depth: 0, pending: 0, oldest_queued_at: null, workers_polling: 0 };
/** The test simulates hours, which takes seconds on an idle machine. */
const TIMEOUT = { timeout: 120_000 };

/** An idle Environment that gets a webhook for each session, after a delay. `tells.never` turns webhooks off. */
function hinted(options: LoopWorldOptions = {}) {
  const clock = new VirtualClock();
  const hints = new Hints({ clock, metrics: createMetrics() });
  const budget = new Budget({ clock, limits: { memberMs: 2 * DEFAULT_TIMING.hintedIdleMs } });
  const world = new LoopWorld({ ...options, clock, budget, hints });
  const tells = { afterMs: 300, never: false };
  world.api.world.events.on("session", (sessionId, { type }) => {
    if (type !== "session.status_running" || tells.never) return;
    clock.setTimer(() => hints.arrived({ sessionId, workspaceId: null }), tells.afterMs);
  });
  world.createEnvironment();
  world.startOperator();
  const requests = (call: string) => world.api.requests.get(call) ?? 0;
  const sent = async (call: string, ms: number) => {
    const before = requests(call);
    await world.pass(ms);
    return requests(call) - before;
  };
  /** Serves one session to its end. Its item came with a hint, or without one. */
  const serveOne = async () => {
    const id = world.enqueue();
    await world.until(
      "the item is stopped and everything is settled",
      () => world.item(id).state === "stopped" && world.isSettled,
      10 * MINUTE,
    );
    return id;
  };
  /** Serves as many sessions as prove whether hints come. */
  const serveSome = async () => {
    for (let item = 0; item < PROVEN_AFTER; item += 1) await serveOne();
  };
  return { clock, hints, world, tells, requests, sent, serveOne, serveSome };
}

const claimed = (world: LoopWorld, id: string) => world.item(id).acks.length > 0;

describe("an idle Environment that receives webhooks", TIMEOUT, () => {
  test("polls a few times an hour, and still starts a session immediately", async () => {
    const { world, sent, serveSome } = hinted();
    await world.pass(MINUTE);
    await serveSome();
    await world.pass(HOUR);
    const polls = await sent("poll", HOUR);
    expect(polls).toBeGreaterThanOrEqual(10);
    expect(polls).toBeLessThanOrEqual(14);
    expect(await sent("stats", HOUR)).toBeLessThanOrEqual(8);
    const id = world.enqueue();
    await world.until("the item is claimed", () => claimed(world, id), 2 * SECOND);
    expect(world.violations).toEqual([]);
  });

  test("without warm Pods, reads statistics as rarely, and immediately after a hint", async () => {
    const { world, sent, serveSome } = hinted({ sessions: { warm: 0, maxConcurrent: 2 }, prepareMs: () => 2_000 });
    await world.pass(MINUTE);
    await serveSome();
    await world.pass(HOUR);
    expect((await sent("stats", HOUR)) + (await sent("poll", HOUR))).toBeLessThanOrEqual(14);
    const id = world.enqueue();
    await world.until("the item is claimed", () => claimed(world, id), 5 * SECOND);
    // The Pod took a while to start, but the item still counts as hinted.
    await world.until("everything is settled", () => world.isSettled, 10 * MINUTE);
    await world.pass(HOUR);
    expect(await sent("stats", HOUR)).toBeLessThanOrEqual(14);
  });

  test("keeps the usual pace until some items came with hints", async () => {
    const { world, tells, sent, serveSome } = hinted();
    tells.never = true;
    await world.pass(MINUTE);
    await serveSome();
    await world.pass(10 * MINUTE);
    expect(await sent("poll", 10 * MINUTE)).toBeGreaterThan(USUAL_POLLS);
    tells.never = false;
    await serveSome();
    await world.pass(HOUR);
    expect(await sent("poll", HOUR)).toBeLessThanOrEqual(14);
  });

  test("polls twice for a hint without work, and not again for more hints about the same session", async () => {
    const { world, hints, requests, serveSome } = hinted();
    await world.pass(MINUTE);
    await serveSome();
    await world.pass(HOUR);
    const before = requests("poll");
    hints.arrived({ sessionId: "sesn_of_somebody_else", workspaceId: null });
    await world.pass(SECOND);
    expect(requests("poll") - before).toBe(1);
    await world.pass(EARLY_MS);
    expect(requests("poll") - before).toBe(2);
    for (let again = 0; again < 50; again += 1)
      hints.arrived({ sessionId: "sesn_of_somebody_else", workspaceId: null });
    await world.pass(2 * EARLY_MS);
    expect(requests("poll") - before).toBe(2);
  });

  test("does not poll more because of repeated hints about a running session", async () => {
    let servesMs = SECOND;
    const { hints, world, sent, serveSome } = hinted({
      sessions: { warm: 1, maxConcurrent: 2 },
      fate: () => ({ startError: false, program: "stock", servesMs }),
    });
    await world.pass(MINUTE);
    await serveSome();
    servesMs = 2 * HOUR;
    const id = world.enqueue();
    await world.until("the session runs", () => world.item(id).state === "active");
    await world.pass(20 * MINUTE);
    const session = world.api.world.item(id).data.id;
    // The session starts to run again after every tool call.
    const turns = world.clock.setTimer(function turn() {
      hints.arrived({ sessionId: session, workspaceId: null });
      world.clock.setTimer(turn, 20 * SECOND);
    }, 20 * SECOND);
    expect(await sent("poll", 30 * MINUTE)).toBeLessThanOrEqual(8);
    turns.cancel();
  });

  test("claims the next item of a session whose worker has left", async () => {
    const { hints, world, serveOne, serveSome } = hinted();
    await world.pass(MINUTE);
    await serveSome();
    const id = await serveOne();
    await world.pass(HOUR);
    const { id: sessionId } = world.api.world.item(id).data;
    world.api.world.converse(sessionId, bashScript("true"));
    hints.arrived({ sessionId, workspaceId: null });
    const next = world.items.find(({ state }) => state === "queued");
    if (!next) throw new Error("no item was queued");
    await world.until("the item is claimed", () => claimed(world, next.id), 2 * SECOND);
  });
});

describe("webhooks that stop", TIMEOUT, () => {
  test("delay one item by at most the documented time, and then the usual pace returns", async () => {
    const { world, tells, sent, serveSome } = hinted();
    await world.pass(MINUTE);
    await serveSome();
    await world.pass(HOUR);
    tells.never = true;
    const id = world.enqueue();
    await world.until(
      "the item is claimed",
      () => claimed(world, id),
      DEFAULT_TIMING.hintedIdleMs * SLACK + SECOND + REQUEST,
    );
    await world.until("everything is settled", () => world.isSettled, 10 * MINUTE);
    await world.pass(FRESH_MS + 10 * MINUTE);
    expect(await sent("poll", 10 * MINUTE)).toBeGreaterThan(USUAL_POLLS);
    const next = world.enqueue();
    await world.until("the item is claimed", () => claimed(world, next), 3 * SECOND);
    expect(world.violations).toEqual([]);
  });

  test("are also detected when they come too early for the queue", async () => {
    const { clock, hints, world, tells, sent, serveSome } = hinted();
    await world.pass(MINUTE);
    await serveSome();
    await world.pass(HOUR);
    tells.never = true;
    // The webhook comes a while before polls or statistics show the item.
    world.api.world.events.once("session", (sessionId) => {
      clock.setTimer(() => hints.arrived({ sessionId, workspaceId: null }), 0);
    });
    const untilMs = clock.monotonic() + FRESH_MS + 12 * SECOND;
    const nothing: Record<string, unknown> = { poll: null, stats: EMPTY };
    world.api.answer = (call) =>
      call in nothing && clock.monotonic() < untilMs ? { status: 200, body: nothing[call] } : undefined;
    // A poll that already waits would receive the item right after its webhook.
    await world.pass(2 * SECOND);
    const id = world.enqueue();
    await world.until("the item is claimed", () => claimed(world, id), 2 * DEFAULT_TIMING.hintedIdleMs);
    await world.until("everything is settled", () => world.isSettled, 10 * MINUTE);
    await world.pass(10 * MINUTE);
    expect(await sent("poll", 10 * MINUTE)).toBeGreaterThan(USUAL_POLLS);
  });
});
