import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { enqueueOne, untilState, untilTold } from "../support/session-life.ts";
import { startE2eWorld } from "../support/world.ts";

describe.concurrent("items that get no Pod", () => {
  test.each([
    ["healthcheck", "HealthCheck"],
    ["a-type-of-tomorrow", "UnknownItem"],
  ] as const)(
    "an item of type %s is acknowledged and stopped at once, and costs no parked Pod",
    async (type, reason) => {
      await using world = await startE2eWorld();
      await world.createEnvironment();
      const [parked] = await world.untilParked(1);
      const item = await world.simulator.enqueue(world.environmentId, { type });
      const last = await untilState(world, item, "stopped");
      expect(last).toMatchObject({ beats: 0, stoppedBy: { as: "environment-key" } });
      expect(last.acks).toHaveLength(1);
      await world.untilServed(1);
      await world.until("it is counted once", async () => {
        return (await world.metric("berth_sessions_ended_total", { reason })) === 1;
      });
      expect(await world.metric("berth_sessions_started_total")).toBeFalsy();
      // The operator may have created another Pod while the item waited.
      const free = world.parked.map(({ metadata }) => metadata.uid);
      expect(free).toContain(parked?.metadata.uid);
      // The Pod was never assigned.
      expect(
        new Set(
          world
            .history(parked ?? world.pods[0] ?? { metadata: {}, spec: { containers: [] } })
            .map(({ metadata }) => metadata.labels?.["berth.dev/phase"]),
        ),
      ).toEqual(new Set(["warm"]));
      // A Pod that was not used serves the next session.
      const served = await enqueueOne(world, { script: bashScript("echo hello") });
      expect(free).toContain(served.pod.metadata.uid);
      await untilState(world, served.item, "stopped");
      await untilTold(world, served.item, "Completed", "Pod", served.pod.metadata.name ?? "");
    },
  );

  test("health checks between sessions: each is answered, and each session is served once", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 2, maxConcurrent: 4 } });
    await world.createEnvironment();
    await world.untilParked(2);
    for (let i = 0; i < 3; i += 1) {
      await world.simulator.enqueue(world.environmentId, { type: "healthcheck" });
      await world.simulator.enqueue(world.environmentId, { script: bashScript(`echo ${i}`) });
    }
    await world.untilServed(6);
    const items = await world.simulator.items();
    expect(items.map(({ acks }) => acks.length)).toEqual([1, 1, 1, 1, 1, 1]);
    for (const { type, stoppedBy, beats } of items) {
      expect({ type, as: stoppedBy?.as, isBeaten: beats > 0 }).toEqual(
        type === "session"
          ? { type, as: "sessions-token", isBeaten: true }
          : { type, as: "environment-key", isBeaten: false },
      );
    }
    const sessions = await world.simulator.sessions();
    expect(sessions.map(({ toolCalls }) => toolCalls.map(({ output }) => output)).toSorted()).toEqual([
      ["0"],
      ["1"],
      ["2"],
    ]);
    const ended = (reason: string) => world.metric("berth_sessions_ended_total", { reason });
    await world.until("all are counted", async () => {
      return (await ended("HealthCheck")) === 3 && (await ended("Completed")) === 3;
    });
  });
});
