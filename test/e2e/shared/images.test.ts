import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import { alive, created } from "../support/pods.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const MISSING = "localhost/berth-nowhere:e2e";

/** The worker's image, but with another user. */
const rootImage = (world: E2eWorld) =>
  world.cluster.images.typescript.replace("berth-worker-typescript", "berth-rootuser");

/** The template with another image for its container. */
function withImage(world: E2eWorld, image: string): Record<string, unknown> {
  const template = world.template() as { spec: { containers: Record<string, unknown>[] } };
  const containers = template.spec.containers.map((container) => ({ ...container, image }));
  return { ...template, spec: { ...template.spec, containers } };
}

/** How often the kubelet tried to pull an image, as counted by its Events. */
function pulls(world: E2eWorld): number {
  const about = world.events("Pulling");
  return about.reduce((sum, event) => sum + Math.max(1, Number(event["count"] ?? 1)), 0);
}

const enqueue = async (world: E2eWorld, count: number): Promise<ItemRecord[]> => {
  const items: ItemRecord[] = [];
  for (let left = count; left > 0; left -= 1) {
    items.push(await world.simulator.enqueue(world.environmentId, { script: bashScript("echo hello") }));
  }
  return items;
};

describe.concurrent("an image that does not exist", () => {
  test("costs no item: the condition names it and the fix, and a fixed template serves the queue", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 2 }, container: { image: MISSING } });
    await world.createEnvironment();
    await enqueue(world, 3);
    const condition = await world.untilCondition("CapacityAvailable", "ImagePullFailing");
    expect(condition.status).toBe("False");
    expect(condition.message).toContain(MISSING);
    expect(condition.message).toContain("correct the image's name or its imagePullSecrets");
    await world.untilCondition("Ready", "ImagePullFailing");
    // The kubelet retries with backoff. Its message changes, but the condition's does not.
    await world.until("kubelet has asked three times", () => pulls(world) >= 3);
    expect(world.condition("CapacityAvailable")?.message).toBe(condition.message);
    expect(
      world.events("ImagePullFailing").filter(({ involvedObject }) => involvedObject.kind === "Environment"),
    ).toHaveLength(1);
    expect(created(world)).toBe(2);
    expect((await world.simulator.items()).map(({ state, offers }) => [state, offers])).toEqual(
      Array(3).fill(["queued", []]),
    );
    await world.patchSpec({ sessions: { template: withImage(world, world.cluster.images.typescript) } });
    await world.untilServed(3);
    await world.untilCondition("CapacityAvailable", "Available");
    await world.untilCondition("Ready", "Ready");
    expect(await world.metric("berth_start_failures_total")).toBe(0);
  });

  test("is given up after prepareTimeoutSeconds and retried with backoff", async () => {
    await using world = await startE2eWorld({
      sessions: { prepareTimeoutSeconds: 10, maxConcurrent: 1 },
      container: { image: MISSING },
    });
    await world.createEnvironment();
    await world.until("a second Pod", () => created(world) >= 2);
    expect(alive(world).length).toBeLessThanOrEqual(1);
    const condition = await world.untilCondition("CapacityAvailable", "ImagePullFailing");
    expect(condition.message).toContain(MISSING);
    await world.until("a third", () => created(world) >= 3);
    expect(world.condition("CapacityAvailable")?.reason).toBe("ImagePullFailing");
    expect(await world.metric("berth_prepare_failures_total")).toBeGreaterThanOrEqual(2);
  });

  test("in a rollout shows in the condition, and the Pods of the next template are prepared", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 2 } });
    await world.createEnvironment();
    await world.untilParked(1);
    await world.patchSpec({ sessions: { template: withImage(world, MISSING) } });
    await world.untilCondition("CapacityAvailable", "ImagePullFailing");
    await world.patchSpec({ sessions: { template: withImage(world, world.cluster.images.typescript) } });
    await world.untilCondition("CapacityAvailable", "Available");
    await world.untilParked(1);
  });
});

describe.concurrent("an image that runs as root in a Pod that must not", () => {
  test("costs three items, which are stopped with the kubelet's message, and the others wait for a fix", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    await world.createEnvironment({
      sessions: { warm: 1, maxConcurrent: 1, template: withImage(world, rootImage(world)) },
    });
    await world.untilParked(1);
    await enqueue(world, 5);
    const condition = await world.untilCondition("SessionsStarting", "StartsFailing");
    expect(condition.message).toContain("container has runAsNonRoot and image will run as root");
    await world.untilCondition("Ready", "StartsFailing");
    await world.until("three are settled", async () => {
      const stopped = (await world.simulator.items()).filter(({ state }) => state === "stopped");
      return stopped.length === 3 && world.claims.length === 0;
    });
    await world.untilParked(1);
    const items = await world.simulator.items();
    expect(items.filter(({ state }) => state === "queued").map(({ acks }) => acks)).toEqual([[], []]);
    for (const { id } of items.filter(({ state }) => state === "stopped")) {
      const events = await world.until(`Events about item ${id}`, () => {
        const about = world.events("StartFailed").filter(({ message }) => message?.includes(id));
        return about.length >= 2 && about;
      });
      expect(events.map(({ involvedObject }) => involvedObject.kind).sort()).toEqual(["Environment", "Pod"]);
      for (const { message } of events)
        expect(message).toContain("container has runAsNonRoot and image will run as root");
    }
    expect(await world.metric("berth_sessions_ended_total", { reason: "StartFailed" })).toBe(3);
    expect(await world.metric("berth_starts_failing")).toBe(1);

    await world.patchSpec({ sessions: { template: withImage(world, world.cluster.images.typescript) } });
    await world.untilServed(5);
    await world.untilCondition("SessionsStarting", "Starting");
    await world.untilCondition("Ready", "Ready");
    expect(await world.metric("berth_starts_failing")).toBe(0);
  });

  test("is queued again with onPodFailure: Release, and a fixed template serves it", async () => {
    // The TTL is the item's wait for its next turn, and the longest delay that a busy node may cause its worker.
    await using world = await startE2eWorld({ ttlSeconds: 15 });
    await world.createEnvironment({
      sessions: {
        ...{ warm: 1, maxConcurrent: 1, onPodFailure: "Release" },
        template: withImage(world, rootImage(world)),
      },
    });
    await world.untilParked(1);
    const [item] = await enqueue(world, 1);
    await world.untilCondition("SessionsStarting", "StartsFailing");
    await world.patchSpec({ sessions: { template: withImage(world, world.cluster.images.typescript) } });
    await world.untilServed(1);
    const last = await world.simulator.item(item?.id ?? "");
    expect(last.stoppedBy?.as).toBe("sessions-token");
    const { toolCalls } = await world.simulator.session(last.sessionId ?? "");
    expect(toolCalls.map(({ output }) => output)).toEqual(["hello"]);
  });

  test("fails while its Pod is parked with parking: Shell, and costs no item", async () => {
    const sessions = { warm: 1, maxConcurrent: 1, parking: "Shell" };
    await using world = await startE2eWorld({ sessions });
    await world.createEnvironment({ sessions: { ...sessions, template: withImage(world, rootImage(world)) } });
    await enqueue(world, 1);
    const condition = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(condition.message).toContain("container has runAsNonRoot and image will run as root");
    expect(created(world)).toBe(1);
    await world.patchSpec({ sessions: { template: withImage(world, world.cluster.images.typescript) } });
    await world.untilServed(1);
    expect(await world.metric("berth_start_failures_total")).toBe(0);
  });
});
