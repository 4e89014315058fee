import { describe, expect, test } from "vitest";
import type { Resource } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/sessions/environment-hold.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { deploymentsOf, pollersWorld, untilWorkers, workersOf, workersSpec } from "../support/workers-world.ts";

const cluster = useCluster();

const QUOTAS: Resource = {
  group: "",
  version: "v1",
  plural: "resourcequotas",
  kind: "ResourceQuota",
  namespaced: true,
};

describe.concurrent("what keeps workers from being made or from running", () => {
  test("a quota: the condition says so, and as many as fit serve", async () => {
    await using world = await pollersWorld(cluster);
    await world.kube.create(QUOTAS, {
      metadata: { name: "small", namespace: world.namespace },
      spec: { hard: { pods: "1" } },
    });
    await world.createEnvironment(workersSpec(world));
    world.startOperator();
    for (let n = 0; n < 3; n += 1) world.simulator.enqueue(world.environmentId);
    const { message } = await world.untilCondition("CapacityAvailable", "QuotaExceeded");
    expect(message).toContain("raise the quota, or lower maxReplicas");
    await untilWorkers(world, "one serves", ({ busy }) => busy === 1);
    await world.kube.delete(QUOTAS, { namespace: world.namespace, name: "small" });
    await untilWorkers(world, "three serve", ({ busy }) => busy === 3);
    await world.untilCondition("CapacityAvailable", "Available");
  });

  test("a Secret that the template names and that is not there: its words are shown, and it heals", async () => {
    await using world = await pollersWorld(cluster, { key: false });
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 1 } }));
    world.startOperator();
    const { message } = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(message).toContain('secret "key" not found');
    await world.createKey();
    await untilWorkers(world, "it runs", ({ ready }) => ready === 1);
    await world.untilCondition("Ready", "Ready");
  });

  test("an image that cannot be had, with work that waits: mended, the new workers take the place of the stuck ones", async () => {
    await using world = await pollersWorld(cluster);
    const part = workersSpec(world) as { workers: { template: { spec: { containers: Record<string, unknown>[] } } } };
    const broken = structuredClone(part.workers);
    for (const container of broken.template.spec.containers) container["image"] = "registry.invalid/worker:1";
    await world.createEnvironment({ sessions: undefined, workers: broken });
    world.startOperator();
    for (let n = 0; n < 4; n += 1) world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CapacityAvailable", "ImagePullFailing");
    expect(workersOf(world)).toHaveLength(4);
    await world.patchSpec({ workers: part.workers });
    await untilWorkers(world, "four serve", ({ busy }) => busy === 4);
    await world.until("one Deployment", async () => (await deploymentsOf(world)).length === 1);
  });
});

test("whoever deletes an Environment in the foreground gets what the documentation says: workers end at once", async () => {
  await using world = await pollersWorld(cluster);
  await world.createEnvironment(workersSpec(world));
  const { metrics } = world.startOperator();
  world.simulator.enqueue(world.environmentId);
  await untilWorkers(world, "it serves", ({ busy }) => busy === 1);
  await world.kube.delete(
    ENVIRONMENTS,
    { namespace: world.namespace, name: world.name },
    { propagationPolicy: "Foreground" },
  );
  await world.until("the busy worker was counted", async () => {
    return ((await metricValue(metrics.workersEndedWhileBusy, {})) ?? 0) > 0;
  });
  await world.until("all is gone", () => !world.environment && workersOf(world).length === 0);
});
