import { describe, expect, test } from "vitest";
import { json } from "../../../simulator/http.ts";
import type { HttpReply } from "../../../src/work/http.ts";
import { LoopWorld } from "./loop-world.ts";
import { WorkApi } from "./work-api.ts";

const MINUTE = 60_000;

const ITEM = {
  id: "work_odd",
  environment_id: "env_1",
  state: "queued",
  data: { type: "session", id: "sesn_odd" },
  created_at: "2030-01-01T00:00:00Z",
};

const QUEUE = "QueueReachable";

async function started(options: ConstructorParameters<typeof LoopWorld>[0] = {}, prepare = (_world: LoopWorld) => {}) {
  const world = new LoopWorld(options);
  prepare(world);
  world.createEnvironment();
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  return world;
}

describe("a malformed polled item", () => {
  test.each([
    ["unknown state", { state: "expired" }],
    ["invalid id", { id: ".." }],
    ["secret that does not fit into an environment variable", { secret: "a\u0000b" }],
  ])("stays in the queue and is reported, and others are served: %s", async (_what, change) => {
    const world = await started();
    let turn = 0;
    // The item is offered repeatedly, between other answers.
    world.api.answer = (call) => (call === "poll" && turn++ % 3 === 0 ? json(200, { ...ITEM, ...change }) : undefined);
    await world.until(
      "QueueReachable reports BadReply",
      () => world.conditionOf(QUEUE)?.reason === "BadReply",
      5 * MINUTE,
    );
    expect(world.conditionOf(QUEUE)?.message).toMatch(
      /^Work API poll: item \S+ is malformed: the work item's \w+ is not/,
    );
    const id = world.enqueue();
    await world.until(
      "another item is served and settled",
      () => world.item(id).acks.length > 0 && world.isSettled,
      10 * MINUTE,
    );
    expect(world.conditionOf(QUEUE)?.reason).toBe("BadReply");
    const { metrics } = world;
    expect(await metrics.registry.metrics()).toMatch(/berth_claims_total\{[^}]*result="unreadable"[^}]*\} [1-9]/);
    world.api.answer = () => undefined;
    await world.until(
      "QueueReachable is True again",
      () => world.conditionOf(QUEUE)?.reason === "Reachable",
      5 * MINUTE,
    );
    expect(world.wrongs).toEqual([]);
  });
});

test("many malformed items at the head of the queue do not block others", async () => {
  const world = await started();
  // Like a server that offers an unacknowledged item again after the time that the poll names, before later items.
  const offeredMs = Array.from({ length: 6 }, () => Number.NEGATIVE_INFINITY);
  world.api.answer = (call, { path }) => {
    if (call !== "poll") return undefined;
    const againMs = Number(new URL(path, "https://work.test").searchParams.get("reclaim_older_than_ms"));
    const nowMs = world.clock.monotonic();
    const next = offeredMs.findIndex((atMs) => nowMs - atMs >= againMs);
    if (next < 0) return undefined;
    offeredMs[next] = nowMs;
    return json(200, { ...ITEM, id: `work_odd${next}`, state: "expired" });
  };
  await world.pass(5 * MINUTE);
  const id = world.enqueue();
  await world.until(
    "another item is served and settled",
    () => world.item(id).acks.length > 0 && world.isSettled,
    2 * MINUTE,
  );
  expect(world.wrongs).toEqual([]);
});

/** Changes the items of every list of the world's Work API. */
function alsoListed(world: LoopWorld, show: (items: Record<string, unknown>[]) => Record<string, unknown>[]): void {
  const change = (reply: HttpReply): HttpReply => {
    const page = JSON.parse(reply.body.toString()) as { data: Record<string, unknown>[] };
    return { ...reply, body: Buffer.from(JSON.stringify({ ...page, data: show(page.data) })) };
  };
  world.api.sender = (link, clock) => {
    const { send } = WorkApi.prototype.sender.call(world.api, link, clock);
    return {
      send: async (request) => {
        const reply = await send(request);
        const isList = request.method === "GET" && /\/work(\?|$)/.test(request.path) && reply.status === 200;
        return isList ? change(reply) : reply;
      },
    };
  };
}

describe("a malformed listed item", () => {
  const fate = () => ({ startError: false, program: "crashes", servesMs: 5_000 }) as const;

  test.each([
    ["unknown state", { ...ITEM, state: "expired" }],
    ["no data", { ...ITEM, data: null }],
  ])("does not prevent others from settling: %s", async (_what, odd) => {
    const world = await started({ fate }, (it) => alsoListed(it, (items) => [odd, ...items]));
    const id = world.enqueue();
    await world.until(
      "the item is acknowledged and everything is settled",
      () => world.item(id).acks.length > 0 && world.isSettled,
      10 * MINUTE,
    );
    expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
    expect(world.conditionOf(QUEUE)?.reason).toBe("Reachable");
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("that a session waits for is reported and not treated as absent", async () => {
    let isOdd = true;
    const world = await started({ fate }, (it) =>
      alsoListed(it, (items) => items.map((item) => (isOdd ? { ...item, state: "expired" } : item))),
    );
    const id = world.enqueue();
    await world.until(
      "QueueReachable reports BadReply",
      () => world.conditionOf(QUEUE)?.reason === "BadReply",
      10 * MINUTE,
    );
    expect(world.conditionOf(QUEUE)?.message).toContain(`Work API list: item ${id} is malformed: `);
    expect([world.item(id).state, world.claims.length]).not.toEqual(["stopped", 0]);
    isOdd = false;
    await world.until("everything is settled", () => world.isSettled, 20 * MINUTE);
    expect(world.item(id).state).toBe("stopped");
    expect(world.violations).toEqual([]);
  });
});
