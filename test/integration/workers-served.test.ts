import { expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { untilWorkers, workersOf, workersSpec, workersWorld } from "../support/workers-world.ts";

const cluster = useCluster();

test("stock workers in a scaled Deployment complete sessions, from none to as many as are wanted and back to none", async () => {
  await using world = await workersWorld(cluster);
  await world.createEnvironment(workersSpec(world, { workers: { maxReplicas: 3 } }));
  const { metrics } = world.startOperator();
  await world.untilCondition("Ready", "Ready");
  expect(workersOf(world)).toEqual([]);

  const items = [1, 2, 3, 4, 5].map((n) =>
    world.simulator.enqueue(world.environmentId, { script: bashScript(`echo session ${n}`) }),
  );
  await world.until("all items are stopped", () =>
    items.every(({ id }) => world.simulator.item(id).state === "stopped"),
  );
  await untilWorkers(world, "no worker is left", ({ desired, replicas }) => desired === 0 && replicas === 0);

  for (const [n, { sessionId = "" }] of items.entries()) {
    expect(world.simulator.session(sessionId).toolCalls.map(({ output }) => output)).toEqual([`session ${n + 1}`]);
  }
  expect(await metricValue(metrics.workersEndedWhileBusy, {})).toBe(0);
  expect(await metricValue(metrics.workersScaled, { direction: "up" })).toBeGreaterThan(0);
  world.simulator.assertNoViolations();
});
