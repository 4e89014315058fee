import { randomInt } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { expect, test } from "vitest";
import { useCluster } from "../support/cluster.ts";
import { startWorld } from "../support/world.ts";

const cluster = useCluster();

/** Items arrive across all restarts: five kills, each at a random moment of its own interval. */
const KILLS = 5;
const RATE_PER_SECOND = 5;
const BETWEEN_KILLS_MS = 4_000;

test("kill -9 of the operator, five times under load: nothing is lost, runs twice, or is left over", async () => {
  const seed = randomInt(2 ** 31 - 1);
  console.log(`arrivals' seed: ${seed}`);
  await using world = await startWorld(cluster, {
    sessions: { warm: 10, maxConcurrent: 40 },
    node: { seed, fates: () => ({ kind: "worker", workMs: { min: 100, max: 2_000 } }) },
  });
  await world.createEnvironment();
  let operator = await world.startOperatorProcess();
  await world.untilParked(10);
  const durationSeconds = ((KILLS + 1) * BETWEEN_KILLS_MS) / 1_000;
  const arrivals = world.simulator.arrivals(world.environmentId, {
    kind: "poisson",
    ratePerSecond: RATE_PER_SECOND,
    durationSeconds,
    seed,
  });
  for (let kill = 0; kill < KILLS; kill += 1) {
    // Not a wait for a condition: the moment of the kill is random.
    await pause(randomInt(BETWEEN_KILLS_MS));
    await operator.process.kill();
    operator = await world.startOperatorProcess();
  }
  const arrived = await arrivals.done;

  await world.untilServed(arrived);

  world.simulator.assertNoViolations();
  const items = world.simulator.items(world.environmentId);
  expect(
    items.filter(({ firstBeatAt }) => firstBeatAt === undefined),
    "items that no worker served",
  ).toEqual([]);
  expect(
    items.filter(({ acks }) => acks.length !== 1).map(({ id, acks }) => [id, acks]),
    "items acknowledged more than once",
  ).toEqual([]);
  expect(
    items.reduce((sum, { refusedBeats }) => sum + refusedBeats, 0),
    "heartbeats of a second container",
  ).toBe(0);
  await world.until("only free Pods are left", () =>
    world.pods.every(({ metadata }) => metadata.labels?.["berth.dev/phase"] === "warm"),
  );
});
