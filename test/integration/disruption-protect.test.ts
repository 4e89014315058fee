import { isDeepStrictEqual } from "node:util";
import { describe, expect, test } from "vitest";
import { hasStatus } from "../../src/kube/errors.ts";
import { POD_DISRUPTION_BUDGETS, type Pod, type PodDisruptionBudget } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, serveOne, untilEnded, untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

const protectedWorld = (sessions: Record<string, unknown> = {}) =>
  startWorld(cluster, {
    ...SHORT_LEASE,
    node: { fates: () => ({ kind: "worker", end: "hang" }) },
    // Time for a worker to learn of its stop with the next heartbeat.
    podSpec: { terminationGracePeriodSeconds: 30 },
    sessions: { warm: 1, maxConcurrent: 4, disruption: "Protect", ...sessions },
  });

async function budgetOf(world: World): Promise<PodDisruptionBudget | undefined> {
  const { items } = await world.kube.list(POD_DISRUPTION_BUDGETS, { namespace: world.namespace });
  return items[0];
}

/** Calls the Eviction API as `kubectl drain` does. Returns true if granted, or the refusal's message. */
async function evict(world: World, pod: Pod): Promise<true | string> {
  const { name = "" } = pod.metadata;
  const path = `/api/v1/namespaces/${world.namespace}/pods/${name}/eviction`;
  try {
    await world.kube.raw("POST", path, { apiVersion: "policy/v1", kind: "Eviction", metadata: { name } });
    return true;
  } catch (error) {
    if (!hasStatus(error, 429)) throw error;
    return String(error);
  }
}

/** Waits until the disruption controller has counted `healthy` Pods of the wanted number. */
const untilCounted = (world: World, healthy: number, wanted: number) =>
  world.until(`the budget counts ${healthy} of ${wanted} healthy Pods`, async () => {
    const status = (await budgetOf(world))?.status;
    return status?.["currentHealthy"] === healthy && status["desiredHealthy"] === wanted;
  });

describe.concurrent("disruption: Protect", () => {
  test("the Eviction API refuses a busy Pod as soon as the budget counts it, and evicts parked ones", async () => {
    await using world = await protectedWorld();
    const served = await serveOne(world);
    // At this moment the disruption controller may not have counted yet. An unprocessed budget refuses, too.
    await world.until("the budget counts it", async () => (await budgetOf(world))?.spec?.minAvailable === 1);
    expect(await evict(world, served.pod)).toContain("disruption budget");
    await untilState(world, served.item, "active");
    await untilCounted(world, 1, 1);
    expect(await evict(world, served.pod)).toContain("disruption budget");
    const [parked] = await world.untilParked(1);
    expect(parked && (await evict(world, parked))).toBe(true);

    world.simulator.stopItem(served.item.id);
    await untilEnded(world, served, "Completed");
    await world.until("the budget is lowered", async () => (await budgetOf(world))?.spec?.minAvailable === 0);
  });

  test("a drain evicts the parked Pods and waits for the busy one until its session has ended", async () => {
    await using world = await protectedWorld();
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await untilCounted(world, 1, 1);
    await world.untilParked(1);
    expect(await world.node.drain()).toEqual([served.pod.metadata.name]);
    world.simulator.stopItem(served.item.id);
    await untilEnded(world, served, "Completed");
    // Retries as kubectl does: the budget covers a Pod that is not retained until its phase shows its end, or it is
    // gone.
    await world.until("the node can be drained", async () => (await world.node.drain()).length === 0);
  });

  test("two sessions are protected while both run, and the other one still is when one has ended", async () => {
    await using world = await protectedWorld({ warm: 2 });
    const first = await serveOne(world);
    const second = world.simulator.enqueue(world.environmentId);
    await untilState(world, first.item, "active");
    await untilState(world, second, "active");
    await untilCounted(world, 2, 2);
    world.simulator.stopItem(first.item.id);
    await world.until("one claim is left", () => world.claims.length === 1);
    await untilCounted(world, 1, 1);
    const left = world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === second.id);
    expect(left && (await evict(world, left))).toContain("disruption budget");
    world.simulator.stopItem(second.id);
    await world.untilServed(2);
    world.simulator.assertNoViolations();
  });

  test("after a change to Allow, the budget is deleted and an evicted session ends as Evicted", async () => {
    await using world = await protectedWorld();
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await untilCounted(world, 1, 1);
    await world.patchSpec({ sessions: { disruption: "Allow" } });
    await world.until("no budget", async () => (await budgetOf(world)) === undefined);
    expect(await evict(world, served.pod)).toBe(true);
    await untilEnded(world, served, "Evicted");
  });

  test("reverts changes to the budget, and deletes it with its Environment", async () => {
    await using world = await protectedWorld();
    await world.createEnvironment();
    world.startOperator();
    const { metadata, spec } = await world.until("a budget", () => budgetOf(world));
    const change = {
      ...{ minAvailable: null, maxUnavailable: 1, unhealthyPodEvictionPolicy: "AlwaysAllow" },
      selector: { matchLabels: { nobody: "has-it" }, matchExpressions: [{ key: "x", operator: "Exists" }] },
    };
    const ref = { namespace: world.namespace, name: metadata.name ?? "" };
    await world.kube.patch(POD_DISRUPTION_BUDGETS, ref, { spec: change }, { type: "merge" });
    await world.until("the changes are reverted", async () => isDeepStrictEqual((await budgetOf(world))?.spec, spec));
    await world.deleteEnvironment();
    // The garbage collector learns of new resource types every half a minute.
    const gone = async () => !world.environment && (await budgetOf(world)) === undefined;
    await world.until("everything is gone", gone, 110_000);
  });
});
