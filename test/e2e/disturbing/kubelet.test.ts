import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { LEAVES_SOON, startWellNode, untilNodeReady } from "../support/node-state.ts";
import { nodeControl, runOperatorProcess } from "../support/operator-process.ts";
import { latest } from "../support/pods.ts";
import { hasNodeControl } from "../support/provided.ts";
import { enqueueOne, expectCounted, serveOne, untilGone, untilSettled, untilState } from "../support/session-life.ts";
import { NEVER } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const uidOf = ({ metadata }: { metadata: { uid?: string | undefined } }) => metadata.uid;

/** Each Pod that was scheduled at the moment of the return may be lost once to the last taint. */
const REPLACED_AT_MOST = 5;

/** Stops the kubelet until the end of the block. */
async function withoutKubelet(world: E2eWorld): Promise<AsyncDisposable> {
  const control = nodeControl(world);
  await control.stopKubelet();
  return { [Symbol.asyncDispose]: () => control.startKubelet() };
}

describe.skipIf(!hasNodeControl())("the kubelet stops", () => {
  test("for a moment: a Pod that gets a session meanwhile starts it, and others are not affected", async () => {
    await using world = await startE2eWorld({
      maxIdleMs: NEVER,
      ttlSeconds: 8,
      sessions: { warm: 2, maxConcurrent: 3 },
    });
    const running = await serveOne(world, { script: bashScript("echo hello") });
    await untilState(world, running.item, "active");
    const parked = await world.untilParked(2);
    let opened: Awaited<ReturnType<typeof enqueueOne>>;
    {
      await using _ = await withoutKubelet(world);
      const { beats } = await world.simulator.item(running.item.id);
      opened = await enqueueOne(world, { script: bashScript("echo meanwhile") });
      await world.until(
        "it still sends heartbeats",
        async () => (await world.simulator.item(running.item.id)).beats > beats,
      );
      expect((await world.simulator.item(opened.item.id)).state).toBe("starting");
    }
    await untilState(world, opened.item, "active");
    expect(parked.map(uidOf)).toContain(uidOf(opened.pod));
    // The kubelet reports the other one as parked again once it has checked it.
    await world.untilParked(1);
    // The remaining one was parked before as well.
    const next = await enqueueOne(world, { script: bashScript("echo next") });
    await untilState(world, next.item, "active");
    expect(parked.map(uidOf)).toContain(uidOf(next.pod));
    for (const { item } of [running, opened, next]) await world.simulator.stopItem(item.id);
    await world.untilServed(3);
    for (const served of [running, opened, next]) {
      const { last } = await untilSettled(world, served, "Completed");
      expect(last.acks).toHaveLength(1);
      expect(latest(world, served.pod).status?.containerStatuses?.[0]?.restartCount).toBe(0);
    }
    await expectCounted(world, { Completed: 3 });
  });

  test("until the node is lost: a live worker keeps its session, and an unstarted one is stopped", async () => {
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
    let opened: Awaited<ReturnType<typeof enqueueOne>>;
    {
      await using _ = await withoutKubelet(world);
      opened = await enqueueOne(world, { script: bashScript("echo never") });
      await untilNodeReady(world, "Unknown");
      await world.until("the Pods are deleted by the taint manager", () => {
        return [running.pod, ...parked].every((pod) => latest(world, pod).metadata.deletionTimestamp);
      });
      const { message } = await world.untilCondition("CapacityAvailable", "Unschedulable");
      expect(message).toContain("untolerated taint");
      // It never started and never will, so the operator gives it up while the node is away.
      const end = await untilSettled(world, opened, "NodeLost");
      expect(end.message).toContain("did not end the Pod in time");
      expect(end.last).toMatchObject({ generation: 1, stoppedBy: { as: "environment-key" } });
      // The operator also knows by now that the running one's node is lost, and the worker still sends heartbeats.
      const { beats } = await world.simulator.item(running.item.id);
      await world.until(
        "it still sends heartbeats",
        async () => (await world.simulator.item(running.item.id)).beats > beats + 2,
      );
      expect(await world.simulator.item(running.item.id)).toMatchObject({ state: "active", acks: [expect.anything()] });
      expect(world.claims.map(({ metadata }) => metadata.name)).toEqual([running.pod.metadata.name]);
    }
    // The kubelet is told to end the Pod: the worker receives SIGTERM and stops its item.
    const { last, message } = await untilSettled(world, running, "NodeLost");
    expect(message).toContain("did not end the Pod in time");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    expect(last.acks).toHaveLength(1);
    for (const pod of [running.pod, ...parked]) await untilGone(world, pod);
    // No container of the abandoned session ever started.
    expect(
      world.history(opened.pod).some(({ status }) => status?.containerStatuses?.some(({ state }) => state?.running)),
    ).toBe(false);
    await world.untilParked(2);
    await world.untilCondition("CapacityAvailable", "Available");
    const next = await enqueueOne(world, { script: bashScript("echo next") });
    await untilState(world, next.item, "active");
    await world.simulator.stopItem(next.item.id);
    await untilSettled(world, next, "Completed");
    await world.untilServed(3);
    // Parked Pods were not replaced repeatedly on a node that came back.
    const lost = [opened.pod, ...parked].map(uidOf);
    const replaced = world.views.everyPod.filter(({ metadata: { uid, labels } }) => {
      const isThere = world.pods.some(({ metadata }) => metadata.uid === uid);
      return labels?.["berth.dev/phase"] === "warm" && !isThere && !lost.includes(uid);
    });
    expect(replaced.length).toBeLessThan(REPLACED_AT_MOST);
    await expectCounted(world, { NodeLost: 2, Completed: 1 });
    expect((await operator.log()).filter(({ level }) => level === "error")).toEqual([]);
  });
});
