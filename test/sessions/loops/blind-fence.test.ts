import { expect, test } from "vitest";
import { HttpFailure } from "../../../src/work/http.ts";
import { metricValue } from "../../support/metric-value.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld } from "./loop-world.ts";
import { WorkApi } from "./work-api.ts";

const MINUTE = 60_000;

/** Runs one session where the operator's first `lost` heartbeats take effect without an answer. */
async function silent(lost: number, fate: Partial<ContainerFate> = {}): Promise<{ world: LoopWorld; id: string }> {
  const silentFor = { startError: false, program: "silent", servesMs: 60 * MINUTE, ...fate } as const;
  const world = new LoopWorld({ sessions: { firstBeatTimeoutSeconds: 60 }, fate: () => silentFor });
  let left = lost;
  world.api.sender = (link, clock) => {
    const { send } = WorkApi.prototype.sender.call(world.api, link, clock);
    return {
      send: async (request) => {
        const { sentAtMs, sentAtWallMs, answeredAtMs, ...reply } = await send(request);
        const times = { sentAtMs, sentAtWallMs, answeredAtMs };
        if (!request.path.includes("/heartbeat") || left === 0) return { ...reply, ...times };
        left -= 1;
        throw new HttpFailure("network", { sent: true, times, status: undefined }, new Error("reset"));
      },
    };
  };
  world.createEnvironment();
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue();
  await world.until(
    "the item is acknowledged and everything is settled",
    () => world.item(id).acks.length > 0 && world.isSettled,
    20 * MINUTE,
  );
  expect(left).toBe(0);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
  return { world, id };
}

test.each([1, 2])(
  "a silent session whose %i fences got no answer ends as NoFirstBeat: no heartbeat was the worker's",
  async (lost) => {
    const { world, id } = await silent(lost);
    expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
    expect(world.sessionReasons).toEqual(["SessionStarted", "NoFirstBeat"]);
    const { values } = await world.metrics.startedToFirstBeat.get();
    expect(values.filter(({ value }) => value > 0)).toEqual([]);
    expect(await metricValue(world.metrics.startFailures, {})).toBe(1);
  },
);

test("a session that ends before its fence is repeated has not served", async () => {
  const { world, id } = await silent(1, { program: "plain", servesMs: 80_000 });
  expect(world.item(id).state).toBe("stopped");
  expect(await metricValue(world.metrics.startFailures, {})).toBe(1);
});
