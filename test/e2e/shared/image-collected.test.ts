import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { nodeControl } from "../support/operator-process.ts";
import { latest } from "../support/pods.ts";
import { hasNodeControl } from "../support/provided.ts";
import {
  enqueueOne,
  expectCounted,
  untilAnswered,
  untilSettled,
  untilState,
  untilTold,
} from "../support/session-life.ts";
import { NEVER } from "../support/worker-template.ts";
import { type E2eOptions, type E2eWorld, startE2eWorld } from "../support/world.ts";

/**
 * A separate name for the TypeScript worker's image, which no other Pods use. No registry has it, so it can't be
 * pulled.
 */
const OWN_IMAGE = "localhost/berth-worker-collected:e2e";

/** A short time limit for a start, long enough for the kubelet to try a registry and report the failure. */
const BRIEF = { warm: 1, maxConcurrent: 1, firstBeatTimeoutSeconds: 8 };
/** For a start that must succeed, on a node that may be busy. */
const PATIENT = { sessions: { firstBeatTimeoutSeconds: 300 } };

/** containerd's own client, on the node. */
async function ctr(world: E2eWorld, ...args: string[]): Promise<string> {
  const control = nodeControl(world);
  const { containerdSocket } = await control.state();
  const common = ["--address", containerdSocket, "--namespace", "k8s.io"];
  const { code, stdout, stderr } = await control.run("ctr", [...common, ...args]);
  if (code !== 0) throw new Error(`ctr ${args.join(" ")}: ${stderr}`);
  return stdout;
}

const bringImage = (world: E2eWorld) =>
  ctr(world, "images", "tag", "--force", world.cluster.images.typescript, OWN_IMAGE);
const removeImage = (world: E2eWorld) => ctr(world, "images", "rm", "--sync", OWN_IMAGE);

/** A world with a Pod parked on its own image. */
async function parkedWorld(options: E2eOptions = {}): Promise<{ world: E2eWorld; parked: Pod }> {
  const world = await startE2eWorld({ maxIdleMs: NEVER, ttlSeconds: 15, container: { image: OWN_IMAGE }, ...options });
  await bringImage(world);
  await world.createEnvironment();
  const [parked] = await world.untilParked(1);
  if (!parked) throw new Error("no Pod is parked");
  return { world, parked };
}

/** Checks that a session ends well, by a user's stop. */
async function expectServed(world: E2eWorld): Promise<void> {
  const served = await enqueueOne(world, { script: bashScript("echo hello") });
  await untilAnswered(world, served.item, 1);
  await world.simulator.stopItem(served.item.id);
  await untilSettled(world, served, "Completed");
}

describe.skipIf(!hasNodeControl())("the image of a parked Pod is collected", () => {
  test("its Pod no longer accepts a session, and an item stays queued until the image is back", async () => {
    const { world, parked } = await parkedWorld();
    await using _ = world;
    await removeImage(world);
    // The kubelet checks every 10 to 15 s.
    const { message } = await world.untilCondition("CapacityAvailable", "ImagePullFailing");
    expect(message).toContain(OWN_IMAGE);
    const item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo later") });
    await world.until("the item is seen", () => {
      const { depth = 0, pending = 0 } = world.environment?.status?.queue ?? {};
      return depth + pending === 1;
    });
    expect((await world.simulator.item(item.id)).acks).toEqual([]);
    await bringImage(world);
    await untilAnswered(world, item, 1);
    await world.simulator.stopItem(item.id);
    await world.untilServed(1);
    await expectCounted(world, { Completed: 1 });
    await world.untilCondition("CapacityAvailable", "Available");
    expect(world.events("StartFailed")).toEqual([]);
    expect(world.history(parked).some(({ status }) => status?.phase === "Failed")).toBe(false);
  });

  test("just before its Pod gets a session, and comes back in time: the session starts", async () => {
    const { world } = await parkedWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    await using _ = world;
    await removeImage(world);
    const served = await enqueueOne(world, { script: bashScript("echo hello") });
    await world.until("kubelet misses the image", () => {
      const state = latest(world, served.pod).status?.containerStatuses?.[0]?.state;
      return /^(ErrImagePull|ImagePullBackOff)$/.test(state?.waiting?.reason ?? "");
    });
    await bringImage(world);
    await untilAnswered(world, served.item, 1);
    await world.simulator.stopItem(served.item.id);
    const { last } = await untilSettled(world, served, "Completed");
    expect(last).toMatchObject({ generation: 1, acks: [expect.anything()] });
    expect(world.events("StartFailed")).toEqual([]);
    await expectCounted(world, { Completed: 1 });
  });

  test("just before its Pod gets a session, permanently: the item is stopped, with the kubelet's message", async () => {
    const { world } = await parkedWorld({ sessions: BRIEF });
    await using _ = world;
    await removeImage(world);
    const served = await enqueueOne(world, { script: bashScript("echo hello") });
    const { message, last } = await untilSettled(world, served, "StartFailed");
    expect(message).toMatch(/the container does not start: (ErrImagePull|ImagePullBackOff): .*berth-worker-collected/);
    expect(last).toMatchObject({ generation: 1, acks: [expect.anything()] });
    expect(latest(world, served.pod).status?.containerStatuses?.[0]?.state?.running).toBe(undefined);
    await world.patchSpec(PATIENT);
    await bringImage(world);
    await world.untilParked(1);
    await expectServed(world);
    await expectCounted(world, { StartFailed: 1, Completed: 1 });
    expect(await world.metric("berth_start_failures_total")).toBe(1);
  });

  test("just before its Pod gets a session, onPodFailure: Release: the item is queued again and served", async () => {
    const { world } = await parkedWorld({ sessions: { ...BRIEF, onPodFailure: "Release" } });
    await using _ = world;
    await removeImage(world);
    const served = await enqueueOne(world, { script: bashScript("echo hello") });
    expect(await untilTold(world, served.item, "StartFailed", "Environment", world.name)).toContain(
      "in the queue again",
    );
    await world.patchSpec(PATIENT);
    await bringImage(world);
    await untilState(world, served.item, "active");
    await untilAnswered(world, served.item, 1);
    await world.simulator.stopItem(served.item.id);
    await world.untilServed(1);
    expect(await world.simulator.item(served.item.id)).toMatchObject({ generation: 2 });
    await expectCounted(world, { StartFailed: 1, Completed: 1 });
  });
});
