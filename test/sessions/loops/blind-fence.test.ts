import { expect, test } from "vitest";
import { HttpFailure } from "../../../src/work/http.ts";
import { LoopWorld } from "./loop-world.ts";
import { WorkApi } from "./work-api.ts";

const MINUTE = 60_000;

test("a silent session whose fence got no answer ends as one, and its beat is not taken for the program's", async () => {
  const fate = () => ({ startError: false, program: "silent", servesMs: 60 * MINUTE }) as const;
  const world = new LoopWorld({ sessions: { firstBeatTimeoutSeconds: 60 }, fate });
  let lost = 0;
  world.api.sender = (link, clock) => {
    const { send } = WorkApi.prototype.sender.call(world.api, link, clock);
    return {
      send: async (request) => {
        const { sentAtMs, sentAtWallMs, answeredAtMs, ...reply } = await send(request);
        const times = { sentAtMs, sentAtWallMs, answeredAtMs };
        if (!request.path.includes("/heartbeat") || lost > 0) return { ...reply, ...times };
        lost += 1;
        throw new HttpFailure("network", { sent: true, times, status: undefined }, new Error("reset"));
      },
    };
  };
  world.createEnvironment();
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue();
  await world.until("it is over", () => world.item(id).acks.length > 0 && world.isSettled, 20 * MINUTE);
  expect(lost).toBe(1);
  expect(world.item(id)).toMatchObject({ state: "stopped", acks: { length: 1 } });
  expect(new Set(world.told.map((words) => words.split(":")[0]))).toEqual(new Set(["SessionStarted", "NoFirstBeat"]));
  const { values } = await world.metrics.startedToFirstBeat.get();
  expect(values.filter(({ value }) => value > 0)).toEqual([]);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
});
