import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import type { KubeObject, Resource } from "../../../src/kube/resource.ts";
import { latest } from "../support/pods.ts";
import { enqueueOne, serveOne, untilEnded, untilGone, untilState } from "../support/session-life.ts";
import { LIVELY_SECONDS, NEVER } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const CORE = { group: "", version: "v1", namespaced: true };
const QUOTAS: Resource = { ...CORE, plural: "resourcequotas", kind: "ResourceQuota" };
const LIMIT_RANGES: Resource = { ...CORE, plural: "limitranges", kind: "LimitRange" };

interface Quota extends KubeObject {
  readonly status?: {
    readonly hard?: Readonly<Record<string, string>>;
    readonly used?: Readonly<Record<string, string>>;
  };
}

/**
 * Creates a quota, and waits until its controller has counted. Before that, the API server refuses what the quota
 * covers.
 */
async function createQuota(world: E2eWorld, name: string, spec: Record<string, unknown>): Promise<void> {
  const { namespace } = world;
  await world.kube.create(QUOTAS, { metadata: { name, namespace }, spec });
  await world.until(`quota ${name} counts`, async () => (await readQuota(world, name)).status?.used);
}

function readQuota(world: E2eWorld, name: string): Promise<Quota> {
  return world.kube.get(QUOTAS as Resource<Quota>, { namespace: world.namespace, name });
}

async function usedBy(world: E2eWorld, name: string, resource: string): Promise<string | undefined> {
  return (await readQuota(world, name)).status?.used?.[resource];
}

describe.concurrent("a ResourceQuota", () => {
  test("limits the Pods: the condition has its message, and what fits is served until it is raised", async () => {
    await using world = await startE2eWorld({
      maxIdleMs: NEVER,
      ttlSeconds: LIVELY_SECONDS,
      sessions: { warm: 1, maxConcurrent: 4 },
    });
    await createQuota(world, "few", { hard: { pods: "1" } });
    await world.createEnvironment();
    await world.untilParked(1);
    const served = await enqueueOne(world);
    await untilState(world, served.item, "active");
    const condition = await world.untilCondition("CapacityAvailable", "QuotaExceeded");
    expect(condition).toMatchObject({ status: "False" });
    expect(condition.message).toMatch(/exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1/);
    expect(condition.message).toContain("raise the quota");
    const waiting = await world.simulator.enqueue(world.environmentId);
    await world.until("its depth is seen", async () => (await world.metric("berth_queue_depth")) === 1);
    expect((await world.simulator.item(waiting.id)).offers).toEqual([]);

    await world.kube.patch(
      QUOTAS,
      { namespace: world.namespace, name: "few" },
      { spec: { hard: { pods: "4" } } },
      { type: "merge" },
    );
    await untilState(world, waiting, "active");
    await world.untilCondition("CapacityAvailable", "Available");
    for (const item of [served.item, waiting]) await world.simulator.stopItem(item.id);
    await world.untilServed(2);
  });

  test("on Pods with a deadline refuses no Pod when its session starts or ends", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    // One scope has room for one Pod with a deadline, the other for none without. A Pod that changed its scope would be
    // refused.
    await createQuota(world, "terminating", { hard: { pods: "1" }, scopes: ["Terminating"] });
    await createQuota(world, "not-terminating", { hard: { pods: "0" }, scopes: ["NotTerminating"] });
    const served = await serveOne(world, { script: bashScript("echo hello") });
    expect(await usedBy(world, "terminating", "pods")).toBe("1");
    await untilEnded(world, served, "Completed");
    expect(latest(world, served.pod).spec.activeDeadlineSeconds).toBeLessThan(2_147_483_647);
    // A finished Pod uses no quota.
    await world.untilParked(1);
    const next = await enqueueOne(world, { script: bashScript("echo hello") });
    await untilState(world, next.item, "stopped");
    await world.untilServed(2);
  });

  test("on Pods without a deadline does not affect sessions", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    await createQuota(world, "not-terminating", { hard: { pods: "0" }, scopes: ["NotTerminating"] });
    const served = await serveOne(world, { script: bashScript("echo hello") });
    await untilEnded(world, served, "Completed");
  });

  test("on Secrets: nothing is claimed that can't be journaled, and all is served once it is raised", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    // The key's own Secret already uses it.
    await createQuota(world, "secrets", { hard: { "count/secrets": "1" } });
    await world.createEnvironment();
    await world.untilParked(1);
    const item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo hello") });
    const condition = await world.until("a condition about it", () =>
      world.environment?.status?.conditions?.find(({ message }) => message.includes("exceeded quota: secrets")),
    );
    expect(condition.message).toContain("raise the quota");
    expect((await world.simulator.item(item.id)).acks).toEqual([]);
    await world.kube.patch(
      QUOTAS,
      { namespace: world.namespace, name: "secrets" },
      { spec: { hard: { "count/secrets": "10" } } },
      { type: "merge" },
    );
    await world.untilServed(1);
    await world.untilCondition("Ready", "Ready");
  });

  test("on memory and CPU requires resources of each container, and Berth sets them on each", async () => {
    await using world = await startE2eWorld({
      sessions: { parking: "Shell", warm: 1, maxConcurrent: 1 },
      // Berth sets the resources that the template omits.
      container: { resources: undefined },
    });
    await createQuota(world, "resources", {
      hard: { "requests.cpu": "1", "requests.memory": "1Gi", "limits.memory": "4Gi" },
    });
    const served = await serveOne(world, { script: bashScript("echo hello") });
    await untilEnded(world, served, "Completed");
  });
});

describe.concurrent("a LimitRange", () => {
  test("that completes containers changes Pods, which Berth does not treat as drift of the template", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 } });
    const limits = [{ type: "Container", default: { cpu: "2" }, defaultRequest: { "ephemeral-storage": "1Mi" } }];
    await world.kube.create(LIMIT_RANGES, {
      metadata: { name: "defaults", namespace: world.namespace },
      spec: { limits },
    });
    const served = await serveOne(world, { script: bashScript("echo hello") });
    expect(served.pod.spec.containers[0]).toMatchObject({
      resources: { limits: { cpu: "2" }, requests: { "ephemeral-storage": "1Mi" } },
    });
    await untilEnded(world, served, "Completed");
    const [next] = await world.untilParked(1);
    await world.patchSpec({ sessions: { retainEndedSeconds: 0 } });
    await untilGone(world, served.pod);
    expect(world.parked.map(({ metadata }) => metadata.uid)).toEqual([next?.metadata.uid]);
  });

  test("that forbids the template: it is refused with the policy's message before anything is claimed", async () => {
    const resources = { limits: { memory: "512Mi" } };
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 1 }, container: { resources } });
    const limits = [{ type: "Container", max: { memory: "32Mi" } }];
    await world.kube.create(LIMIT_RANGES, {
      metadata: { name: "small", namespace: world.namespace },
      spec: { limits },
    });
    await world.createEnvironment();
    const item = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo hello") });
    const condition = await world.until("the template is refused", () => {
      const condition = world.condition("TemplateAccepted");
      return condition?.status === "False" && condition;
    });
    expect(condition.message).toContain("maximum memory usage per Container is 32Mi");
    expect((await world.simulator.item(item.id)).offers).toEqual([]);
    await world.kube.delete(LIMIT_RANGES, { namespace: world.namespace, name: "small" });
    await world.untilServed(1);
  });
});
