import { describe, expect, test } from "vitest";
import { findCondition } from "../../src/api/conditions.ts";
import type { Environment } from "../../src/api/environment.ts";
import { LABEL_ENVIRONMENT } from "../../src/api/names.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

const SECOND = "second";
const ITEMS = 60;
/** Far more than that many items take on a busy machine. */
const PATIENCE_MS = 150_000;

/** Creates the second Environment with the first one's spec and id, in the same or another namespace. */
async function createSecond(world: World, namespace = world.namespace): Promise<void> {
  const metadata = { namespace, name: SECOND };
  await world.kube.create(ENVIRONMENTS, { metadata, spec: world.spec() } as never);
}

async function sharedCondition(world: World, name: string, namespace = world.namespace) {
  const environment = (await world.kube.get(ENVIRONMENTS, { namespace, name })) as Environment;
  return findCondition(environment.status?.conditions, "EnvironmentIdShared");
}

function untilShared(world: World, name: string, status: "True" | "False", namespace = world.namespace) {
  return world.until(`EnvironmentIdShared=${status} of ${name}`, async () => {
    const found = await sharedCondition(world, name, namespace);
    return found?.status === status && found;
  });
}

/** The number of acknowledgements of each item. */
const timesAcknowledged = (world: World) => world.simulator.items(world.environmentId).map(({ acks }) => acks.length);

const stopped = (world: World) =>
  world.simulator.items(world.environmentId).filter(({ state }) => state === "stopped").length;

describe.concurrent("two Environments with one environmentId", () => {
  const load: WorldOptions = {
    sessions: { warm: 2, maxConcurrent: 4 },
    timing: { warmScaleDownMs: 1_000 },
    node: { fates: () => ({ kind: "worker", workMs: { min: 50, max: 400 } }) },
  };

  test("both report it, both serve the queue, and every item is served once", { timeout: 240_000 }, async () => {
    await using world = await startWorld(cluster, load);
    await world.createEnvironment();
    await createSecond(world);
    const operator = world.startOperator();
    await untilShared(world, world.name, "True");
    await untilShared(world, SECOND, "True");
    await world.untilParked(4);

    for (let item = 0; item < ITEMS; item += 1) world.simulator.enqueue(world.environmentId);
    await world.until(
      "all items are served and settled",
      () => stopped(world) === ITEMS && world.claims.length === 0,
      PATIENCE_MS,
    );

    expect(timesAcknowledged(world)).toEqual(Array(ITEMS).fill(1));
    world.simulator.assertNoViolations();
    const claimed = (environment: string) =>
      metricValue(operator.metrics.claims, { namespace: world.namespace, environment, result: "claimed" });
    expect(await claimed(world.name)).toBeGreaterThan(0);
    expect(await claimed(SECOND)).toBeGreaterThan(0);
    expect((await claimed(world.name)) + (await claimed(SECOND))).toBe(ITEMS);
    // A warning is not a fault: both stay ready.
    expect(world.condition("Ready")?.status).toBe("True");
    expect((await sharedCondition(world, SECOND))?.status).toBe("True");
  });

  test("one that is deleted under load leaves no item behind, and ends the other's warning", {
    timeout: 240_000,
  }, async () => {
    await using world = await startWorld(cluster, load);
    await world.createEnvironment();
    await createSecond(world);
    world.startOperator();
    await untilShared(world, world.name, "True");
    await world.untilParked(4);

    for (let item = 0; item < ITEMS; item += 1) world.simulator.enqueue(world.environmentId);
    await world.until("both Environments have claims", () => {
      const working = new Set(world.claims.map(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT]));
      return working.size === 2;
    });
    await world.kube.delete(ENVIRONMENTS, { namespace: world.namespace, name: SECOND });
    const other = await untilShared(world, world.name, "False");
    expect(other.message).not.toContain(SECOND);
    await world.until(
      "all items are served and settled",
      () => stopped(world) === ITEMS && world.claims.length === 0,
      PATIENCE_MS,
    );
    expect(timesAcknowledged(world)).toEqual(Array(ITEMS).fill(1));
    world.simulator.assertNoViolations();
  });

  test("are also detected across namespaces", { timeout: 120_000 }, async () => {
    await using world = await startWorld(cluster);
    const elsewhere = await cluster.createNamespace("elsewhere");
    await world.createEnvironment();
    await createSecond(world, elsewhere);
    const operator = world.startOperator({ flags: ["--namespace", elsewhere] });
    expect((await untilShared(world, world.name, "True")).message).toContain(`${elsewhere}/${SECOND}`);
    await untilShared(world, SECOND, "True", elsewhere);
    await world.deleteEnvironment();
    await untilShared(world, SECOND, "False", elsewhere);
    await operator.stop();
  });
});
