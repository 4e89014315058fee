import { expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import type { Json } from "../api/environments.ts";
import { FleetWorld } from "./fleet-world.ts";

const SECOND_MS = 1_000;
const GRACE_MS = 600 * SECOND_MS;

const AT_ONCE: Json = { scaleDown: { stabilizationWindowSeconds: 0 } };

/** A worker, in the place of one that its node has evicted: the Pod of that one has failed, and stays where it is. */
async function withEvicted(workers: Json): Promise<FleetWorld> {
  const busyProbe = { httpGet: { path: "/busy", port: 9000 } };
  const world = new FleetWorld(seededRandom(3), { maxReplicas: 4, behavior: AT_ONCE, busyProbe, ...workers });
  world.start();
  world.enqueue(1);
  await world.run(20 * SECOND_MS);
  world.evict();
  await world.run(60 * SECOND_MS);
  expect(world.served).toBe(1);
  return world;
}

test("the Pod of a worker that was evicted keeps no Deployment of an earlier template", async () => {
  const world = await withEvicted({ minReplicas: 1 });
  const before = Object.keys(world.replicas);
  world.changeTemplate();
  await world.run(30 * SECOND_MS);
  expect(Object.values(world.replicas)).toEqual([1]);
  expect(Object.keys(world.replicas)).not.toEqual(before);
  await world.stop();
});

test("the Pod of a worker that was evicted does not hold up the deletion of its Environment", async () => {
  const world = await withEvicted({ minReplicas: 1 });
  world.drain(GRACE_MS);
  await world.run(30 * SECOND_MS);
  expect(world.isDrained).toBe(true);
  await world.stop();
});

test("for the Pod of a worker that was evicted nobody counts sessions", async () => {
  const world = await withEvicted({ minReplicas: 0 });
  await world.run(15 * SECOND_MS);
  const { walks } = world;
  await world.run(30 * SECOND_MS);
  expect({ replicas: Object.values(world.replicas), walks: world.walks }).toEqual({ replicas: [0], walks });
  await world.stop();
});
