import { expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import { SECRETS } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { untilWorkers, workersOf, workersSpec, workersWorld } from "../support/workers-world.ts";

const cluster = useCluster();

test("stock workers in a scaled Deployment serve all sessions, scaling up from zero and back to zero", async () => {
  await using world = await workersWorld(cluster);
  await world.createEnvironment(workersSpec(world, { maxIdleMs: 1_000, workers: { maxReplicas: 3 } }));
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
  expect(await metricValue(metrics.workerProbes, { answer: "busy" })).toBeGreaterThan(0);
  expect(await metricValue(metrics.workersScaled, { direction: "up" })).toBeGreaterThan(0);
  world.simulator.assertNoViolations();
});

test("a worker that doesn't finish its session in time is killed when its Environment is deleted", async () => {
  await using world = await workersWorld(cluster);
  const podSpec = { terminationGracePeriodSeconds: undefined };
  const part = workersSpec(world, { maxIdleMs: 600_000, workers: { minReplicas: 2, maxReplicas: 2 }, podSpec });
  await world.createEnvironment({ ...part, deletionGraceSeconds: 2 });
  world.startOperator();
  const item = world.simulator.enqueue(world.environmentId, { script: bashScript("echo working") });
  await untilWorkers(world, "one worker is busy", ({ busy, ready }) => busy === 1 && ready === 2);
  await world.deleteEnvironment();
  await world.until("the Environment and its Pods are gone", () => !world.environment && world.pods.length === 0);
  expect(world.simulator.item(item.id).stoppedBy).toBeUndefined();
  world.simulator.assertNoViolations();
});

test("workers use a new key after the old one is rejected", async () => {
  await using world = await workersWorld(cluster);
  await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 1 } }));
  world.startOperator();
  await untilWorkers(world, "a worker", ({ ready }) => ready === 1);
  const key = world.simulator.rotateKey(world.environmentId);
  await world.untilCondition("Authenticated", "KeyRejected");
  expect(workersOf(world)).toHaveLength(1);
  const patch = { stringData: { "environment-key": key } };
  await world.kube.patch(SECRETS, { namespace: world.namespace, name: "key" }, patch, { type: "merge" });
  await world.untilCondition("Authenticated", "KeyAccepted");
  const item = world.simulator.enqueue(world.environmentId, { script: bashScript("echo again") });
  await world.until("the item is stopped", () => world.simulator.item(item.id).state === "stopped");
});
