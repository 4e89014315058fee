import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import { STARTED_MARKER } from "../../../src/pods/frame.ts";
import { freezeKubelet, killSandboxOf } from "../support/node-state.ts";
import { nodeControl } from "../support/operator-process.ts";
import { latest } from "../support/pods.ts";
import { hasNodeControl, OPERATOR_REPLICAS } from "../support/provided.ts";
import { RESTARTS, startAfterwards, untilAttached } from "../support/restarts.ts";
import {
  enqueueOne,
  type Served,
  untilAnswered,
  untilAssigned,
  untilGone,
  untilSettled,
} from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const uidOf = ({ metadata }: { metadata: { uid?: string | undefined } }) => metadata.uid;

const shellWorld = () => startE2eWorld({ sessions: { parking: "Shell", warm: 2, maxConcurrent: 6 } });

/** Waits until the operator reports this number of Pods that a session can be claimed for. */
function untilFree(world: E2eWorld, count: number): Promise<boolean> {
  return world.until(`${count} free Pods`, () => world.environment?.status?.sessions?.warm === count);
}

/** Checks that the session was served by one start of its program, in a container that was never restarted. */
async function expectServedOnce(world: E2eWorld, served: Served): Promise<void> {
  const { last } = await untilSettled(world, served, "Completed");
  expect(last).toMatchObject({ generation: 1, acks: [expect.anything()], refusedBeats: 0 });
  expect(latest(world, served.pod).status?.containerStatuses?.[0]?.restartCount).toBe(0);
  expect((await world.podLog(served.pod)).split(STARTED_MARKER)).toHaveLength(2);
}

/** Freezes the kubelet until the end of the block, and replaces it then. */
async function crashKubeletAfterwards(world: E2eWorld): Promise<AsyncDisposable> {
  await freezeKubelet(world);
  return {
    [Symbol.asyncDispose]: async () => {
      await nodeControl(world).stopKubelet("SIGKILL");
      await nodeControl(world).startKubelet();
    },
  };
}

describe.skipIf(!hasNodeControl())("Pods that wait in a shell", () => {
  test("survive restarts of the operator, the API server, the kubelet and containerd", async () => {
    await using world = await shellWorld();
    await world.createEnvironment();
    for (const [program, restart] of RESTARTS) {
      const waiting = await world.untilParked(2);
      await untilAttached(world, 2);
      await restart(world);
      await untilAttached(world, 2);
      const served = await enqueueOne(world, { script: bashScript(`echo ${program}`) });
      await untilAnswered(world, served.item, 1);
      expect(waiting.map(uidOf), program).toContain(uidOf(served.pod));
      for (const pod of waiting) {
        expect(latest(world, pod).metadata.deletionTimestamp, program).toBe(undefined);
        expect(latest(world, pod).status?.containerStatuses?.[0]?.restartCount, program).toBe(0);
      }
      // containerd reports no exit code of a container that ends while it is stopped.
      await expectServedOnce(world, served);
    }
    await world.until("all replicas are ready", async () => {
      return (await world.operators.readyPods()).length === OPERATOR_REPLICAS;
    });
  });

  test("are replaced after a reboot of their node, and a session that arrives meanwhile starts in a new one", async () => {
    await using world = await shellWorld();
    await world.createEnvironment();
    const waiting = await world.untilParked(2);
    await untilFree(world, 2);
    let item: ItemRecord;
    {
      await using _ = startAfterwards(world);
      await nodeControl(world).stopKubelet("SIGKILL");
      await nodeControl(world).stopContainerd("SIGKILL");
      for (const pod of waiting) await killSandboxOf(world, pod);
      await untilFree(world, 0);
      item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo after") });
    }
    const pod = await untilAssigned(world, item);
    await untilAnswered(world, item, 1);
    expect(waiting.map(uidOf)).not.toContain(uidOf(pod));
    for (const pod of waiting) await untilGone(world, pod);
    await expectServedOnce(world, { item, pod });
  });

  test("get no item while their kubelet does not answer, and one once it does", async () => {
    await using world = await shellWorld();
    await world.createEnvironment();
    const waiting = await world.untilParked(2);
    await untilAttached(world, 2);
    let item: ItemRecord;
    {
      await using _ = await crashKubeletAfterwards(world);
      item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo once") });
      // Their connections still seem open, until an offered item makes the operator ask them.
      await untilFree(world, 0);
      expect(await world.simulator.item(item.id)).toMatchObject({ state: "queued", acks: [] });
    }
    const pod = await untilAssigned(world, item);
    await untilAnswered(world, item, 1);
    expect(waiting.map(uidOf)).toContain(uidOf(pod));
    await expectServedOnce(world, { item, pod });
  });
});
