import { describe, expect, test } from "vitest";
import { LoopWorld } from "./loop-world.ts";

const MINUTE = 60_000;

// Nobody keeps the clock of the operator's machine; those of the cluster and of the Work API agree.

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
    await world.until("it is served", () => world.isSettled, 5 * MINUTE);
    expect(world.item(id)).toMatchObject({
      state: "stopped",
      acks: { length: 1 },
      stoppedBy: { as: "environment-key" },
    });
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("takes up no claim of a process before it while its acknowledgement may still land", async () => {
    const world = new LoopWorld({ switches: { starting: "never" } });
    world.createEnvironment();
    const first = world.startOperator();
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.api.delay = (call) => (call === "ack" ? 1_200 : 0);
    const id = world.enqueue();
    await world.until("its acknowledgement is under way", () => world.api.requests.has("ack"));
    first.kill();
    world.api.delay = () => 0;
    world.startOperator({ clockAheadMs });
    await world.until("it is served", () => world.item(id).acks.length > 0 && world.isSettled, 5 * MINUTE);
    expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });
});
