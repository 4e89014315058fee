import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import { itemsFromNode } from "../support/from-node.ts";
import { nodeControl } from "../support/operator-process.ts";
import { latest } from "../support/pods.ts";
import { hasNodeControl, OPERATOR_REPLICAS } from "../support/provided.ts";
import { enqueueOne, podOf, serveOne, untilAnswered, untilSettled, untilState } from "../support/session-life.ts";
import { NEVER } from "../support/worker-template.ts";
import { startE2eWorld } from "../support/world.ts";

describe.skipIf(!hasNodeControl())("the API server is unavailable for some seconds", () => {
  test.each(["SIGTERM", "SIGKILL"] as const)(
    "after %s: sessions continue, and items that arrive or end meanwhile are served and settled once",
    async (signal) => {
      await using world = await startE2eWorld({
        maxIdleMs: NEVER,
        ttlSeconds: 8,
        sessions: { warm: 2, maxConcurrent: 5 },
      });
      const control = nodeControl(world);
      const node = itemsFromNode(world);
      const running = await serveOne(world, { script: bashScript("echo before") });
      const ending = await enqueueOne(world, { script: bashScript("echo before") });
      for (const { item } of [running, ending]) await untilAnswered(world, item, 1);
      await world.untilParked(2);
      const arrived: ItemRecord[] = [];
      await control.stopApiServer(signal);
      try {
        const before = await node.item(running.item.id);
        for (const name of ["first", "second"])
          arrived.push(await node.enqueue({ script: bashScript(`echo ${name}`) }));
        await node.stop(ending.item.id);
        // Several heartbeats long, so that the operators and the watches have noticed.
        await node.untilItem(ending.item.id, ({ state }) => state === "stopped");
        await node.untilItem(running.item.id, ({ beats }) => beats > before.beats + 1);
        expect((await node.item(running.item.id)).state).toBe("active");
      } finally {
        await control.startApiServer();
      }
      const { last: ended } = await untilSettled(world, ending, "Completed");
      expect(ended.stoppedBy?.as).toBe("sessions-token");
      for (const item of arrived) await untilAnswered(world, item, 1);
      // Watches continue: the operator claims an item for a Pod that was parked since.
      const next = await enqueueOne(world, { script: bashScript("echo after") });
      await untilAnswered(world, next.item, 1);
      const all = [running, next, ...arrived.map((item) => ({ item, pod: podOf(world, item) ?? running.pod }))];
      for (const { item } of all) {
        await untilState(world, item, "active");
        await world.simulator.stopItem(item.id);
      }
      await world.untilServed(5);
      for (const served of [...all, ending]) {
        const { last } = await untilSettled(world, served, "Completed");
        expect(last.acks).toHaveLength(1);
        expect(last.generation).toBe(1);
        const pods = world.views.everyPod.filter(
          ({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === last.id,
        );
        expect(pods).toHaveLength(1);
        expect(latest(world, served.pod).status?.containerStatuses?.[0]?.restartCount).toBe(0);
      }
      await world.until(
        "all replicas are ready",
        async () => (await world.operators.readyPods()).length === OPERATOR_REPLICAS,
      );
    },
  );
});
