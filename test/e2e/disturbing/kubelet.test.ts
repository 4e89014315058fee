import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import { LEAVES_SOON, startWellNode, untilNodeReady } from "../support/node-state.ts";
import { nodeControl, runOperatorProcess } from "../support/operator-process.ts";
import { latest } from "../support/pods.ts";
import { hasNodeControl } from "../support/provided.ts";
import {
  enqueueOne,
  expectCounted,
  serveOne,
  untilAssigned,
  untilGone,
  untilSettled,
  untilState,
} from "../support/session-life.ts";
import { NEVER } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const uidOf = ({ metadata }: { metadata: { uid?: string | undefined } }) => metadata.uid;

/** Each Pod that was scheduled at the moment of the return may be lost once to the last taint. */
const REPLACED_AT_MOST = 5;

/** Waits until the operator knows of no Pod that a session can be claimed for. */
function untilNoneIsFree(world: E2eWorld): Promise<boolean> {
  return world.until("no Pod is free", () => world.environment?.status?.sessions?.warm === 0);
}

/** Stops the kubelet until the end of the block. */
async function withoutKubelet(world: E2eWorld): Promise<AsyncDisposable> {
  const control = nodeControl(world);
  await control.stopKubelet();
  return { [Symbol.asyncDispose]: () => control.startKubelet() };
}

describe.skipIf(!hasNodeControl())("the kubelet stops", () => {
  test("for a moment: sessions continue, and an item that arrives meanwhile starts one afterwards", async () => {
    await using world = await startE2eWorld({
      maxIdleMs: NEVER,
      ttlSeconds: 8,
      sessions: { warm: 2, maxConcurrent: 3 },
    });
    const running = await serveOne(world, { script: bashScript("echo hello") });
    await untilState(world, running.item, "active");
    const parked = await world.untilParked(2);
    let item: ItemRecord;
    {
      await using _ = await withoutKubelet(world);
      const { beats } = await world.simulator.item(running.item.id);
      await untilNoneIsFree(world);
      item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo meanwhile") });
      await world.until(
        "it still sends heartbeats",
        async () => (await world.simulator.item(running.item.id)).beats > beats,
      );
      expect((await world.simulator.item(item.id)).acks).toEqual([]);
    }
    const meanwhile = { item, pod: await untilAssigned(world, item) };
    await untilState(world, item, "active");
    const next = await enqueueOne(world, { script: bashScript("echo next") });
    await untilState(world, next.item, "active");
    // All in Pods that waited before.
    for (const { pod } of [meanwhile, next]) expect(parked.map(uidOf)).toContain(uidOf(pod));
    for (const { item } of [running, meanwhile, next]) await world.simulator.stopItem(item.id);
    await world.untilServed(3);
    for (const served of [running, meanwhile, next]) {
      const { last } = await untilSettled(world, served, "Completed");
      expect(last.acks).toHaveLength(1);
      expect(latest(world, served.pod).status?.containerStatuses?.[0]?.restartCount).toBe(0);
    }
    await expectCounted(world, { Completed: 3 });
  });

  test("until the node is lost: a live worker keeps its session, and nothing is claimed", async () => {
    await using world = await startE2eWorld({
      maxIdleMs: NEVER,
      ttlSeconds: 8,
      podSpec: LEAVES_SOON,
      sessions: { warm: 2, maxConcurrent: 3 },
    });
    await using _well = await startWellNode(world);
    await using operator = await runOperatorProcess(world, { timeScale: 4 });
    const running = await serveOne(world, { script: bashScript("echo hello") });
    await untilState(world, running.item, "active");
    const parked = await world.untilParked(2);
    let item: ItemRecord;
    {
      await using _ = await withoutKubelet(world);
      await untilNoneIsFree(world);
      item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo later") });
      await untilNodeReady(world, "Unknown");
      await world.until("the Pods are deleted by the taint manager", () => {
        return [running.pod, ...parked].every((pod) => latest(world, pod).metadata.deletionTimestamp);
      });
      const { message } = await world.untilCondition("CapacityAvailable", "Unschedulable");
      expect(message).toContain("untolerated taint");
      // The worker still sends heartbeats.
      const { beats } = await world.simulator.item(running.item.id);
      await world.until(
        "it still sends heartbeats",
        async () => (await world.simulator.item(running.item.id)).beats > beats + 2,
      );
      expect(await world.simulator.item(running.item.id)).toMatchObject({ state: "active", acks: [expect.anything()] });
      expect((await world.simulator.item(item.id)).acks).toEqual([]);
    }
    // The kubelet is told to end the Pod: the worker receives SIGTERM and stops its item.
    const { last, message } = await untilSettled(world, running, "Evicted");
    expect(message).toContain("Taint manager");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(last.acks).toHaveLength(1);
    for (const pod of [running.pod, ...parked]) await untilGone(world, pod);
    const later = { item, pod: await untilAssigned(world, item) };
    await untilState(world, item, "active");
    await world.simulator.stopItem(item.id);
    await untilSettled(world, later, "Completed");
    await world.untilServed(2);
    await world.untilParked(2);
    await world.untilCondition("CapacityAvailable", "Available");
    // Parked Pods were not replaced repeatedly on a node that came back.
    const lost = parked.map(uidOf);
    const replaced = world.views.everyPod.filter(({ metadata: { uid, labels } }) => {
      const isThere = world.pods.some(({ metadata }) => metadata.uid === uid);
      return labels?.["berth.dev/phase"] === "warm" && !isThere && !lost.includes(uid);
    });
    expect(replaced.length).toBeLessThan(REPLACED_AT_MOST);
    await expectCounted(world, { Evicted: 1, Completed: 1 });
    expect((await operator.log()).filter(({ level }) => level === "error")).toEqual([]);
  });
});
