import { describe, expect, test } from "vitest";
import { NODES } from "../../../src/kube/resource.ts";
import { counted, created } from "../support/pods.ts";
import { enqueueOne, podOf, untilState } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** More than any node has. */
const TOO_MUCH = { requests: { cpu: "10k" } };

/** Sets this test's own label on every node; null removes it. */
async function labelNodes(world: E2eWorld, label: string, value: string | null): Promise<void> {
  const { items } = await world.kube.list(NODES, {});
  for (const { metadata } of items) {
    const patch = { metadata: { labels: { [label]: value } } };
    await world.kube.patch(NODES, { name: metadata.name ?? "" }, patch, { type: "merge" });
  }
}

describe.concurrent("a Pod that fits no node", () => {
  test("with too large requests: the condition has the scheduler's message, and nothing is claimed", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 2 } });
    const template = world.template() as { spec: { containers: Record<string, unknown>[] } };
    const containers = template.spec.containers.map((container) => ({ ...container, resources: TOO_MUCH }));
    await world.createEnvironment({
      sessions: {
        warm: 1,
        maxConcurrent: 2,
        template: { spec: { ...template.spec, containers } },
      },
    });
    const item = await world.simulator.enqueue(world.environmentId);
    const condition = await world.untilCondition("CapacityAvailable", "Unschedulable");
    expect(condition).toMatchObject({ status: "False" });
    expect(condition.message).toContain("Insufficient cpu");
    expect(condition.message).toContain("change the template's requests");
    await world.untilCondition("Ready", "Unschedulable");
    await world.until("its depth is seen", async () => (await world.metric("berth_queue_depth")) === 1);
    expect((await world.simulator.item(item.id)).offers).toEqual([]);

    // Smaller Pods fit: the waiting ones are replaced at once.
    await world.patchSpec({ sessions: { template: world.template() } });
    await world.untilServed(1);
    await world.untilCondition("CapacityAvailable", "Available");
    expect(await counted(world, "berth_prepare_failures_total")).toBe(0);
  });

  test("with a node selector that matches none: it waits, and serves as soon as a node matches", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    const label = `e2e.berth.dev/${world.namespace}`;
    const template = world.template() as { spec: Record<string, unknown> };
    await world.createEnvironment({
      sessions: {
        ...{ warm: 1, maxConcurrent: 1 },
        template: { spec: { ...template.spec, nodeSelector: { [label]: "yes" } } },
      },
    });
    const condition = await world.untilCondition("CapacityAvailable", "Unschedulable");
    expect(condition.message).toMatch(/didn't match Pod's node affinity\/selector/);
    const [waiting] = world.pods;
    const item = await world.simulator.enqueue(world.environmentId);
    try {
      await labelNodes(world, label, "yes");
      await world.untilServed(1);
      expect(podOf(world, item)?.metadata.uid).toBe(waiting?.metadata.uid);
      await world.untilCondition("CapacityAvailable", "Available");
      await world.untilCondition("Ready", "Ready");
    } finally {
      await labelNodes(world, label, null);
    }
    // The waiting Pod served the session; the other one is its successor.
    await world.until("its successor", () => created(world) >= 2);
    expect(created(world)).toBe(2);
    expect(await counted(world, "berth_prepare_failures_total")).toBe(0);
  });

  test("does not block Pods that fit: one of two serves, and the other one is placed afterwards", async () => {
    // One such Pod at a time in the whole cluster.
    const podAntiAffinity = {
      requiredDuringSchedulingIgnoredDuringExecution: [
        {
          labelSelector: { matchLabels: { "berth.dev/environment": "served" } },
          topologyKey: "kubernetes.io/os",
        },
      ],
    };
    await using world = await startE2eWorld({
      sessions: { warm: 2, maxConcurrent: 2 },
      podSpec: { affinity: { podAntiAffinity } },
    });
    await world.createEnvironment();
    await world.untilParked(1);
    const condition = await world.untilCondition("CapacityAvailable", "Unschedulable");
    expect(condition.message).toMatch(/anti-affinity/);
    const first = await enqueueOne(world);
    await untilState(world, first.item, "stopped");
    const second = await enqueueOne(world);
    await untilState(world, second.item, "stopped");
    await world.untilServed(2);
    expect(second.pod.metadata.uid).not.toBe(first.pod.metadata.uid);
  });
});
