import { randomInt } from "node:crypto";
import { describe, expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import type { ItemRecord } from "../../simulator/item.ts";
import { useCluster } from "../support/cluster.ts";
import {
  deploymentsOf,
  pollersWorld,
  untilWorkers,
  workersOf,
  workersPart,
  workersSpec,
} from "../support/workers-world.ts";
import type { World } from "../support/world.ts";

const cluster = useCluster();

const PATIENCE_MS = 180_000;
const LONG = 400_000;

const ALL = 6;

/** Scales by this number of workers every two seconds, so that a kill falls between two steps. */
const inSteps = (value: number) => ({
  stabilizationWindowSeconds: 0,
  policies: [{ type: "Pods", value, periodSeconds: 2 }],
});

const uids = (world: World) =>
  workersOf(world)
    .map(({ metadata }) => metadata.uid ?? "")
    .sort();

const stateOf = (world: World, { id }: ItemRecord) => world.simulator.item(id).state;

async function replicasOf(world: World): Promise<number> {
  return (await deploymentsOf(world)).reduce((sum, { spec }) => sum + (spec.replicas ?? 0), 0);
}

const enqueue = (world: World, count: number) =>
  Array.from({ length: count }, () => world.simulator.enqueue(world.environmentId));

function untilRunning(world: World, items: readonly ItemRecord[]): Promise<boolean> {
  const runs = () => items.every((item) => stateOf(world, item) === "active");
  return world.until(`${items.length} items run`, runs, PATIENCE_MS);
}

/** Waits for one Deployment with a busy worker per session, and checks that only the test ended sessions. */
async function expectSettled(world: World, running: readonly ItemRecord[]): Promise<void> {
  await untilRunning(world, running);
  await world.until(
    "one Deployment has as many workers as sessions run",
    async () => {
      const deployments = await deploymentsOf(world);
      const count = running.length;
      return deployments.length === 1 && (await replicasOf(world)) === count && workersOf(world).length === count;
    },
    PATIENCE_MS,
  );
  await untilWorkers(world, "all workers are busy", ({ busy }) => busy === running.length);
  for (const item of running) expect(world.simulator.item(item.id)).toMatchObject({ state: "active" });
  expect(world.events("WorkerEndedWhileBusy")).toEqual([]);
  world.simulator.assertNoViolations();
}

describe.concurrent("an operator that is killed (kill -9) while it scales workers", () => {
  test(
    "up: the next one continues with the existing workers",
    async () => {
      await using world = await pollersWorld(cluster);
      const behavior = { scaleUp: inSteps(1), scaleDown: inSteps(1) };
      await world.createEnvironment(workersSpec(world, { workers: { maxReplicas: ALL, behavior } }));
      const { process } = await world.startOperatorProcess();
      const items = enqueue(world, ALL);
      await world.until("some workers exist", async () => (await replicasOf(world)) > 0, PATIENCE_MS);
      await process.kill();
      expect(await replicasOf(world)).toBeLessThan(ALL);
      const serving = await world.until("all workers are busy", async () => {
        const there = uids(world);
        const running = items.filter((item) => stateOf(world, item) === "active").length;
        return there.length === (await replicasOf(world)) && running === there.length && there;
      });

      await world.startOperatorProcess();

      await expectSettled(world, items);
      expect(uids(world)).toEqual(expect.arrayContaining(serving));
    },
    LONG,
  );

  test(
    "down: the next one continues, and busy workers stay",
    async () => {
      await using world = await pollersWorld(cluster);
      const behavior = { scaleUp: inSteps(ALL), scaleDown: inSteps(1) };
      await world.createEnvironment(workersSpec(world, { workers: { maxReplicas: ALL, behavior } }));
      const { process } = await world.startOperatorProcess();
      const items = enqueue(world, ALL);
      await expectSettled(world, items);
      const [second, last] = [items[1], items[ALL - 1]] as [ItemRecord, ItemRecord];
      for (const item of items) if (item !== second && item !== last) world.simulator.stopItem(item.id);
      await world.until("the first worker is deleted", async () => (await replicasOf(world)) < ALL, PATIENCE_MS);
      await process.kill();
      expect(await replicasOf(world)).toBeGreaterThan(2);

      await world.startOperatorProcess();

      await expectSettled(world, [second, last]);
    },
    LONG,
  );

  test(
    "at any moment, repeatedly, while work comes and goes and the template changes",
    async () => {
      const seed = randomInt(2 ** 30);
      console.log(`seed of the kills: ${seed}`);
      const random = seededRandom(seed);
      await using world = await pollersWorld(cluster);
      await world.createEnvironment(workersSpec(world, { workers: { maxReplicas: ALL } }));
      let running: ItemRecord[] = [];
      for (const what of ["more", "less", "template", "more", "less"] as const) {
        const { process } = await world.startOperatorProcess();
        if (what === "more") running = [...running, ...enqueue(world, ALL - running.length)];
        if (what === "less") {
          await untilRunning(world, running);
          for (const { id } of running.splice(0, 3)) world.simulator.stopItem(id);
        }
        if (what === "template") {
          await world.patchSpec({
            workers: workersPart(world, { workers: { maxReplicas: ALL }, env: { ROUND: what } }),
          });
        }
        let left = Math.floor(random() * 8);
        const stopLooking = world.onPodChange(() => {
          left -= 1;
        });
        // If no more Pods change, the kill happens after the timeout.
        await world.until("the moment of the kill is reached", () => left <= 0, 5_000).catch(() => {});
        stopLooking();
        await process.kill();
      }
      await world.startOperatorProcess();
      await untilRunning(world, running);
      // Old workers stay while they are busy. Without work, all of them are deleted.
      for (const item of running) expect(stateOf(world, item)).toBe("active");
      expect(world.events("WorkerEndedWhileBusy")).toEqual([]);
      for (const { id } of running) world.simulator.stopItem(id);
      await world.until(
        "no worker is left, and no Deployment of an earlier template",
        async () => workersOf(world).length === 0 && (await deploymentsOf(world)).length <= 1,
        PATIENCE_MS,
      );
      expect(await replicasOf(world)).toBe(0);
      world.simulator.assertNoViolations();
    },
    LONG,
  );
});
