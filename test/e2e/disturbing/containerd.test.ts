import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { untilNodeReady } from "../support/node-state.ts";
import { nodeControl } from "../support/operator-process.ts";
import { latest } from "../support/pods.ts";
import { hasNodeControl } from "../support/provided.ts";
import {
  enqueueOne,
  expectCounted,
  type Served,
  serveOne,
  untilAnswered,
  untilSettled,
  untilState,
} from "../support/session-life.ts";
import { NEVER } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const uidOf = ({ metadata }: { metadata: { uid?: string | undefined } }) => metadata.uid;

/** Stops containerd until the end of the block; its containers keep running. */
async function withoutContainerd(world: E2eWorld, signal: NodeJS.Signals): Promise<AsyncDisposable> {
  const control = nodeControl(world);
  await control.stopContainerd(signal);
  return { [Symbol.asyncDispose]: () => control.startContainerd() };
}

/** Checks that each session is served by the only container it got, and that nothing is left. */
async function expectServedOnce(world: E2eWorld, all: readonly Served[]): Promise<void> {
  for (const { item } of all) {
    await untilState(world, item, "active");
    await world.simulator.stopItem(item.id);
  }
  await world.untilServed(all.length);
  for (const served of all) {
    const { last } = await untilSettled(world, served, "Completed");
    expect(last).toMatchObject({ generation: 1, acks: [expect.anything()] });
    expect(latest(world, served.pod).status?.containerStatuses?.[0]?.restartCount).toBe(0);
  }
  await expectCounted(world, { Completed: all.length });
}

describe.skipIf(!hasNodeControl())("containerd stops", () => {
  test.each(["SIGTERM", "SIGKILL"] as const)(
    "by %s, for a moment: sessions continue, and one that is opened meanwhile starts afterwards",
    async (signal) => {
      await using world = await startE2eWorld({
        maxIdleMs: NEVER,
        ttlSeconds: 8,
        sessions: { warm: 2, maxConcurrent: 3 },
      });
      const running = await serveOne(world, { script: bashScript("echo before") });
      await untilAnswered(world, running.item, 1);
      const parked = await world.untilParked(2);
      let opened: Served;
      {
        await using _ = await withoutContainerd(world, signal);
        const { beats } = await world.simulator.item(running.item.id);
        opened = await enqueueOne(world, { script: bashScript("echo meanwhile") });
        await world.until(
          "it still sends heartbeats",
          async () => (await world.simulator.item(running.item.id)).beats > beats,
        );
        expect((await world.simulator.item(opened.item.id)).state).toBe("starting");
      }
      await untilAnswered(world, opened.item, 1);
      const next = await enqueueOne(world, { script: bashScript("echo after") });
      await untilAnswered(world, next.item, 1);
      // All in Pods that were parked before.
      for (const { pod } of [opened, next]) expect(parked.map(uidOf)).toContain(uidOf(pod));
      await expectServedOnce(world, [running, opened, next]);
    },
  );

  test("until its node is not ready: nothing is claimed there, and the running session continues", async () => {
    await using world = await startE2eWorld({
      maxIdleMs: NEVER,
      ttlSeconds: 8,
      sessions: { warm: 1, maxConcurrent: 2 },
    });
    const running = await serveOne(world, { script: bashScript("echo before") });
    await untilAnswered(world, running.item, 1);
    await world.untilParked(1);
    let waiting: Awaited<ReturnType<typeof world.simulator.enqueue>>;
    {
      await using _ = await withoutContainerd(world, "SIGTERM");
      const node = await untilNodeReady(world, "False");
      expect(JSON.stringify(node.status)).toContain("container runtime is down");
      const { message } = await world.untilCondition("CapacityAvailable", "Unschedulable");
      expect(message).toContain("untolerated taint");
      waiting = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo later") });
      const { beats } = await world.simulator.item(running.item.id);
      await world.until(
        "it still sends heartbeats",
        async () => (await world.simulator.item(running.item.id)).beats > beats + 1,
      );
      expect((await world.simulator.item(waiting.id)).acks).toEqual([]);
      expect(latest(world, running.pod).metadata.deletionTimestamp).toBe(undefined);
    }
    await untilNodeReady(world, "True");
    await world.untilCondition("CapacityAvailable", "Available");
    await untilAnswered(world, waiting, 1);
    const pod = world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === waiting.id);
    if (!pod) throw new Error("no Pod");
    await expectServedOnce(world, [running, { item: waiting, pod }]);
    expect(world.events("StartFailed")).toEqual([]);
  });
});
