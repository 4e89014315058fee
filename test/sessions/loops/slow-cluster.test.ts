import { describe, expect, test } from "vitest";
import { LoopWorld } from "./loop-world.ts";

const SECOND = 1_000;
/** A poll's wait and the steps through it: an item may arrive at any moment of a poll. */
const POLL_MS = 1_000;
const STEP_MS = 90;

/** An item that arrived too late in one poll is offered again 15 s or more later, at another moment of a poll. */
const OFFERS = 5;

describe.each([100, 250, 400, 500])("an API server that takes %d ms for each request", (slowMs) => {
  test("an item is claimed within a few offers, at whatever moment of a poll it arrives", async () => {
    const offers = new Map<number, number>();
    for (let phaseMs = 0; phaseMs < POLL_MS; phaseMs += STEP_MS) {
      const world = new LoopWorld({ seed: slowMs + phaseMs });
      world.createEnvironment();
      const { kube } = world.startOperator();
      kube.delay = () => slowMs;
      await world.until("a Pod is parked", () => world.parked.length > 0);
      await world.pass(20 * SECOND);
      const polls = () => world.api.world.environment(world.environmentId).waiting;
      await world.until("a poll has ended", () => polls() === 0);
      await world.until("the next poll waits", () => polls() > 0);
      await world.pass(phaseMs);
      const id = world.enqueue();
      await world.until("the item is acknowledged", () => world.item(id).acks.length > 0, 600 * SECOND);
      offers.set(phaseMs, world.item(id).offers.length);
    }
    expect([...offers].filter(([, count]) => count > OFFERS)).toEqual([]);
  });
});
