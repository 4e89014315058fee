import { describe, expect, test } from "vitest";
import { LoopWorld, type LoopWorldOptions, type Operator } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** A world with an Environment and one operator. */
function served(options: LoopWorldOptions = {}): { world: LoopWorld; operator: Operator } {
  const world = new LoopWorld(options);
  world.createEnvironment();
  return { world, operator: world.startOperator() };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe("capacity", () => {
  test("serves a burst beyond what is warm, and never more than maxConcurrent at a time", async () => {
    const { world } = served({ sessions: { maxConcurrent: 3, warm: 1 } });
    await world.until("a parked Pod", () => world.parked.length > 0);
    for (let n = 0; n < 8; n += 1) world.enqueue();
    await world.until("all served", () => world.isSettled);
    expect(world.items.every(({ stoppedBy }) => stoppedBy?.as === "sessions-token")).toBe(true);
    expect(world.maxLivePods).toBeLessThanOrEqual(3);
    holdsTrue(world);
  });

  test("makes a Pod for an item that was polled and let go, also with none kept warm", async () => {
    const { world } = served({ sessions: { maxConcurrent: 2, warm: 0 } });
    const id = world.enqueue();
    const poll = { workerId: "died", reclaimMs: 5_000, blockMs: undefined, duplicate: false };
    await world.api.world.environment(world.environmentId).poll({ ...poll, signal: AbortSignal.abort() });
    await world.until("it is served", () => world.item(id).state === "stopped", 2 * MINUTE);
    holdsTrue(world);
  });
});
