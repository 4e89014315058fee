import { describe, expect, test } from "vitest";
import { LoopWorld } from "./loop-world.ts";

const MINUTE = 60_000;

// The operator's clock is wrong; the clocks of the cluster and the Work API agree.

describe.each([
  ["behind", -10 * MINUTE],
  ["ahead", 10 * MINUTE],
])("an operator whose own clock is minutes %s", (_where, clockAheadMs) => {
  test.each(["Worker", "Operator"])("lease: %s: opens sessions and ends their items", async (lease) => {
    const fate = () =>
      ({ startError: false, program: lease === "Operator" ? "plain" : "dies", servesMs: 5_000 }) as const;
    const world = new LoopWorld({ sessions: { lease }, fate });
    world.createEnvironment();
    world.startOperator({ clockAheadMs });
    await world.until("a parked Pod", () => world.parked.length > 0);
    const id = world.enqueue();
    await world.until("everything is settled", () => world.isSettled, 5 * MINUTE);
    expect(world.item(id)).toMatchObject({
      state: "stopped",
      acks: { length: 1 },
      stoppedBy: { as: "environment-key" },
    });
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("does not adopt an earlier process's claim while its acknowledgement may still land", async () => {
    const world = new LoopWorld({ switches: { starting: "never" } });
    world.createEnvironment();
    const first = world.startOperator();
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.api.delay = (call) => (call === "ack" ? 1_200 : 0);
    const id = world.enqueue();
    await world.until("the acknowledgement is in flight", () => world.api.requests.has("ack"));
    first.kill();
    world.api.delay = () => 0;
    world.startOperator({ clockAheadMs });
    await world.until(
      "the item is acknowledged and everything is settled",
      () => world.item(id).acks.length > 0 && world.isSettled,
      5 * MINUTE,
    );
    expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });
});

// A load balancer or a content network can write the Date headers, while another machine writes the timestamps.

const EDGES: readonly (readonly [where: string, ahead: ((turn: number) => number) | null])[] = [
  ["a second behind", () => -1_000],
  ["50 ms ahead", () => 50],
  ["300 ms ahead", () => 300],
  ["a second ahead", () => 1_000],
  ["ten minutes ahead", () => 10 * MINUTE],
  ["ten minutes behind", () => -10 * MINUTE],
  ["of ten servers, one of them 200 ms ahead", (turn) => (turn % 10 === 0 ? 200 : 0)],
  ["missing", null],
];

describe.each(EDGES)("Date headers that are %s", (_where, ahead) => {
  function skewed(sessions: Record<string, unknown>): LoopWorld {
    // The API does not requeue: an acknowledged item without heartbeats stays acknowledged forever.
    const world = new LoopWorld({ sessions, switches: { starting: "never" } });
    let turn = 0;
    world.api.dateAheadMs = ahead && (() => ahead(turn++));
    world.createEnvironment();
    // Without a Date header, the operator has only its own clock.
    world.startOperator({ clockAheadMs: ahead ? 0 : 4_000 });
    return world;
  }

  test.each(["Worker", "Operator"])("lease: %s: every session is served", async (lease) => {
    const world = skewed({ lease, maxConcurrent: 5, warm: 2 });
    await world.until("a parked Pod", () => world.parked.length > 0);
    // Leaves the operator time to learn the server's clock.
    await world.pass(2 * MINUTE);
    const ids: string[] = [];
    for (let count = 0; count < 5; count += 1) {
      ids.push(world.enqueue());
      await world.pass(20_000);
    }
    await world.until("all items are served and settled", () => world.isSettled, 20 * MINUTE);
    expect(ids.map((id) => world.item(id))).toEqual(
      ids.map(() => expect.objectContaining({ state: "stopped", acks: expect.objectContaining({ length: 1 }) })),
    );
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("an acknowledgement whose answer is lost is recognized", async () => {
    const world = skewed({});
    await world.until("a parked Pod", () => world.parked.length > 0);
    await world.pass(2 * MINUTE);
    const first = world.enqueue();
    await world.until(
      "the first item is served and settled",
      () => world.item(first).acks.length > 0 && world.isSettled,
      20 * MINUTE,
    );
    // The acknowledgement takes effect, but its answer comes after the operator has given up.
    world.api.delay = (call) => (call === "ack" ? 1_600 : 0);
    const id = world.enqueue();
    await world.until("the item is acknowledged", () => world.item(id).acks.length > 0, MINUTE);
    world.api.delay = () => 0;
    await world.until("everything is settled", () => world.isSettled, 20 * MINUTE);
    expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });
});
