import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../simulator/item.ts";
import { FINALIZER } from "../../src/api/names.ts";
import { DEPLOYMENTS, PODS, type Pod } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import {
  deploymentsOf,
  pollersWorld,
  untilWorkers,
  workersOf,
  workersPart,
  workersSpec,
} from "../support/workers-world.ts";
import type { InProcessOperator, World } from "../support/world.ts";

const cluster = useCluster();

/** Queues `count` items, and waits until each has a busy worker. */
async function busyWith(world: World, count: number): Promise<ItemRecord[]> {
  const before = world.environment?.status?.workers?.busy ?? 0;
  const items = Array.from({ length: count }, () => world.simulator.enqueue(world.environmentId));
  await untilWorkers(world, `${before + count} busy workers`, ({ busy }) => busy === before + count);
  return items;
}

/**
 * Waits until there are exactly `count` workers. An item that moves from the queue to a worker may be counted twice,
 * which creates an extra worker for a moment.
 */
function untilThereAre(world: World, count: number): Promise<Pod[]> {
  return world.until(`${count} workers`, () => {
    const workers = workersOf(world);
    return workers.length === count && workers;
  });
}

const uids = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata.uid).sort();

async function noWorkerEndedBusy(world: World, { metrics }: InProcessOperator): Promise<void> {
  expect(await metricValue(metrics.workersEndedWhileBusy, {})).toBe(0);
  expect(world.events("WorkerEndedWhileBusy")).toEqual([]);
  world.simulator.assertNoViolations();
}

describe.concurrent("workers follow the demand", () => {
  test("idle workers are deleted, and busy ones stay, whichever they are", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { maxReplicas: 4 } }));
    const operator = world.startOperator();
    const items = await busyWith(world, 4);
    const [, second, , fourth] = items;
    for (const item of items) if (item !== second && item !== fourth) world.simulator.stopItem(item.id);
    await untilWorkers(world, "two workers are left", ({ replicas, busy }) => replicas === 2 && busy === 2);
    expect([second, fourth].map((item) => item && world.simulator.item(item.id).state)).toEqual(["active", "active"]);
    await noWorkerEndedBusy(world, operator);
    await world.until("the Events ScaledUp and ScaledDown", () =>
      [world.events("ScaledUp"), world.events("ScaledDown")].every(({ length }) => length > 0),
    );
  });

  test("without a probe, no worker is deleted while a session runs", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { probed: false }));
    const operator = world.startOperator();
    const items = Array.from({ length: 3 }, () => world.simulator.enqueue(world.environmentId));
    await world.until("all items run", () => items.every(({ id }) => world.simulator.item(id).state === "active"));
    const [first, ...others] = items;
    const pods = uids(workersOf(world));
    for (const { id } of others) world.simulator.stopItem(id);
    await world.until("the other items are stopped", () =>
      others.every(({ id }) => world.simulator.item(id).state === "stopped"),
    );
    const held = await world.untilCondition("ScalingActive", "ScaleDownHeld");
    expect(held).toMatchObject({ status: "True", message: expect.stringContaining("without a busyProbe") });
    // One more worker may have been added meanwhile, but none was deleted.
    expect(uids(workersOf(world))).toEqual(expect.arrayContaining(pods));
    world.simulator.stopItem(first?.id ?? "");
    await untilWorkers(world, "no worker is left", ({ replicas }) => replicas === 0);
    await noWorkerEndedBusy(world, operator);
  });

  test("keeps minReplicas workers, even without the key", async () => {
    await using world = await pollersWorld(cluster, { key: false });
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 2, maxReplicas: 3 } }));
    world.startOperator();
    await world.untilCondition("Authenticated", "KeySecretMissing");
    await world.until("two workers", () => workersOf(world).length === 2);
    await world.createKey();
    await untilWorkers(world, "two Ready workers", ({ ready, desired }) => ready === 2 && desired === 2);
    await world.untilCondition("Ready", "Ready");
  });

  test("stays within maxReplicas, and reports that more work waits", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { maxReplicas: 2 } }));
    world.startOperator();
    for (let n = 0; n < 5; n += 1) world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CapacityAvailable", "AtMaximum");
    await world.caughtUp("pods");
    expect(workersOf(world)).toHaveLength(2);
    expect(world.environment?.status).toMatchObject({ mode: "Workers", max: 2, workers: { desired: 2 } });
  });

  test("counts several sessions per worker", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { sessionsPerReplica: 3, maxReplicas: 5 } }));
    world.startOperator();
    for (let n = 0; n < 4; n += 1) world.simulator.enqueue(world.environmentId);
    await untilWorkers(world, "two workers", ({ desired, replicas }) => desired === 2 && replicas === 2);
  });

  test("paused: idle workers are deleted immediately, busy ones once they are idle, and none is added", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 2 } }));
    const operator = world.startOperator();
    const [item] = await busyWith(world, 1);
    await world.patchSpec({ paused: true });
    await untilWorkers(world, "only the busy worker is left", ({ replicas, busy }) => replicas === 1 && busy === 1);
    world.simulator.stopItem(item?.id ?? "");
    await untilWorkers(world, "no worker is left", ({ replicas }) => replicas === 0);
    world.simulator.enqueue(world.environmentId);
    await world.until("the status counts the item", () => world.environment?.status?.queue?.depth === 1);
    expect(workersOf(world)).toEqual([]);
    await world.untilCondition("Ready", "Paused");
    await world.patchSpec({ paused: false });
    await untilWorkers(world, "two workers, one of them busy", ({ busy, replicas }) => busy === 1 && replicas === 2);
    await noWorkerEndedBusy(world, operator);
  });
});

describe.concurrent("a failed reading is not zero", () => {
  test.each(["list", "stats"] as const)(
    "while %s fails, the number of workers is kept, and the condition says so",
    async (call) => {
      await using world = await pollersWorld(cluster);
      await world.createEnvironment(workersSpec(world));
      const operator = world.startOperator();
      const items = await busyWith(world, 2);
      await untilThereAre(world, 2);
      const fault = world.simulator.inject({ kind: "status", status: 500, call });
      await world.untilCondition("ScalingActive", "ReadingStale");
      for (const { id } of items) world.simulator.stopItem(id);
      await untilWorkers(world, "no worker is busy", ({ busy }) => busy === 0);
      expect(world.condition("Ready")).toMatchObject({ status: "False" });
      expect(workersOf(world)).toHaveLength(2);
      world.simulator.clearFaults();
      expect(fault).toBeTruthy();
      await untilWorkers(world, "no worker is left", ({ replicas }) => replicas === 0);
      await world.untilCondition("ScalingActive", "ScalingFollowsDemand");
      await noWorkerEndedBusy(world, operator);
    },
  );
});

describe.concurrent("a template that changes", () => {
  /** As many workers as busy ones, so that no idle worker of the old template takes the next item. */
  const BUSY_ONLY = { workers: { maxReplicas: 2 } };

  const labelled = (world: World, team: string, options?: Parameters<typeof workersPart>[1]) => {
    const { template, ...part } = workersPart(world, options) as { template: Record<string, unknown> };
    return { workers: { ...part, template: { ...template, metadata: { labels: { team } } } } };
  };

  test("busy workers of the old one stay until they are idle, and new work goes to the new one", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment({ sessions: undefined, ...labelled(world, "old", BUSY_ONLY) });
    const operator = world.startOperator();
    const [first, second] = await busyWith(world, 2);
    const old = uids(await untilThereAre(world, 2));
    await world.patchSpec(labelled(world, "new"));
    await busyWith(world, 1);
    const now = await untilThereAre(world, 3);
    expect(uids(now.filter(({ metadata }) => metadata.labels?.["team"] === "old"))).toEqual(old);
    expect(now.filter(({ metadata }) => metadata.labels?.["team"] === "new")).toHaveLength(1);
    world.simulator.stopItem(first?.id ?? "");
    await untilWorkers(world, "two workers", ({ replicas }) => replicas === 2);
    expect(world.simulator.item(second?.id ?? "").state).toBe("active");
    world.simulator.stopItem(second?.id ?? "");
    await world.until("one Deployment", async () => (await deploymentsOf(world)).length === 1);
    expect(workersOf(world).map(({ metadata }) => metadata.labels?.["team"])).toEqual(["new"]);
    await noWorkerEndedBusy(world, operator);
  });

  test("a renamed container does not make busy workers look idle", async () => {
    await using world = await pollersWorld(cluster);
    const part = workersPart(world) as { template: { spec: { containers: Record<string, unknown>[] } } };
    await world.createEnvironment({ sessions: undefined, workers: { ...part, ...BUSY_ONLY.workers } });
    const operator = world.startOperator();
    await busyWith(world, 2);
    const old = uids(await untilThereAre(world, 2));
    const renamed = structuredClone(part);
    for (const container of renamed.template.spec.containers) container["name"] = "agent";
    await world.patchSpec({ workers: renamed });
    await busyWith(world, 1);
    expect(uids(await untilThereAre(world, 3))).toEqual(expect.arrayContaining(old));
    await noWorkerEndedBusy(world, operator);
  });

  test("a changed probe port: old workers are still probed at their own port", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world));
    const operator = world.startOperator();
    const [item] = await busyWith(world, 1);
    const [old] = uids(await untilThereAre(world, 1));
    await world.patchSpec({ workers: { busyProbe: { httpGet: { port: 9001 } } } });
    await world.until("the changed spec is observed", () => world.environment?.status?.observedGeneration === 2);
    const busyAnswers = () => metricValue(operator.metrics.workerProbes, { answer: "busy" });
    const before = await busyAnswers();
    await world.until("the old worker answers more probes", async () => (await busyAnswers()) > before + 3);
    expect(uids(workersOf(world))).toContain(old);
    world.simulator.stopItem(item?.id ?? "");
    await world.until("the idle worker is deleted", () => !uids(workersOf(world)).includes(old));
    await noWorkerEndedBusy(world, operator);
  });

  test("busy workers occupy all slots: the new template waits for them", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment({ sessions: undefined, ...labelled(world, "old") });
    const operator = world.startOperator();
    const items = await busyWith(world, 4);
    await world.patchSpec(labelled(world, "new"));
    world.simulator.enqueue(world.environmentId);
    await world.untilCondition("CapacityAvailable", "AtMaximum");
    expect(workersOf(world).every(({ metadata }) => metadata.labels?.["team"] === "old")).toBe(true);
    world.simulator.stopItem(items[0]?.id ?? "");
    await world.until(
      "the fifth item is served",
      () => world.simulator.items(world.environmentId).at(4)?.state === "active",
    );
    expect(workersOf(world).length).toBeLessThanOrEqual(4);
    await noWorkerEndedBusy(world, operator);
  });

  test("idle workers are replaced by new ones that become Ready", async () => {
    await using world = await pollersWorld(cluster);
    const part = (team: string) => {
      const { workers } = labelled(world, team);
      return { workers: { ...workers, minReplicas: 3 } };
    };
    await world.createEnvironment({ sessions: undefined, ...part("old") });
    world.startOperator();
    await untilWorkers(world, "three Ready workers", ({ ready }) => ready === 3);
    await world.patchSpec(part("new"));
    await world.until("three workers of the new template", () => {
      const teams = workersOf(world).map(({ metadata }) => metadata.labels?.["team"]);
      return teams.length === 3 && teams.every((team) => team === "new");
    });
    await world.until("one Deployment", async () => (await deploymentsOf(world)).length === 1);
  });

  test("a refused template leaves the workers unchanged", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment({ sessions: undefined, ...labelled(world, "old", BUSY_ONLY) });
    const operator = world.startOperator();
    await busyWith(world, 1);
    const pods = uids(await untilThereAre(world, 1));
    await world.patchSpec({ workers: { template: { spec: { nodeSelektor: {} } } } });
    const refused = await world.untilCondition("TemplateAccepted", "Refused");
    expect(refused.message).toContain("spec.workers.template");
    expect(uids(workersOf(world))).toEqual(pods);
    expect(await deploymentsOf(world)).toHaveLength(1);
    await noWorkerEndedBusy(world, operator);
  });
});

describe.concurrent("changes of the workers by other clients", () => {
  const scaleBy = async (world: World, replicas: number) => {
    const [deployment] = await deploymentsOf(world);
    const ref = { namespace: world.namespace, name: deployment?.metadata.name ?? "" };
    await world.kube.patch(DEPLOYMENTS, ref, { spec: { replicas } }, { type: "merge" });
  };

  test("restores a Deployment that was scaled by hand, up or down, without ending a busy worker", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 2, maxReplicas: 3 } }));
    const operator = world.startOperator();
    await busyWith(world, 1);
    const [before] = await deploymentsOf(world);
    await scaleBy(world, 6);
    // The operator may restore it before the controllers create a worker: one change by hand, one by the operator.
    await world.until("two workers are left", async () => {
      const [now] = await deploymentsOf(world);
      const isPutRight = (now?.metadata.generation ?? 0) > (before?.metadata.generation ?? 0) + 1;
      return isPutRight && now?.spec.replicas === 2 && workersOf(world).length === 2;
    });
    await untilWorkers(world, "two workers, one of them busy", ({ busy, replicas }) => busy === 1 && replicas === 2);
    await noWorkerEndedBusy(world, operator);
    await scaleBy(world, 0);
    await world.until("two workers again", async () => {
      return (await deploymentsOf(world))[0]?.spec.replicas === 2 && workersOf(world).length === 2;
    });
  });

  test("restores a Deployment whose template was changed by hand", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 1 } }));
    world.startOperator();
    await untilWorkers(world, "a worker", ({ ready }) => ready === 1);
    const [before] = await deploymentsOf(world);
    const annotations = { "kubectl.kubernetes.io/restartedAt": "2030-01-01T00:00:00Z" };
    const patch = { spec: { template: { metadata: { annotations } } } };
    const ref = { namespace: world.namespace, name: before?.metadata.name ?? "" };
    await world.kube.patch(DEPLOYMENTS, ref, patch, { type: "merge" });
    await world.until("the Deployment's template is restored", async () => {
      const [now] = await deploymentsOf(world);
      return (
        (now?.metadata.generation ?? 0) > (before?.metadata.generation ?? 0) + 1 &&
        JSON.stringify(now?.spec.template) === JSON.stringify(before?.spec.template)
      );
    });
  });

  test("creates a Deployment again that was deleted by hand", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 1 } }));
    world.startOperator();
    await untilWorkers(world, "a worker", ({ ready }) => ready === 1);
    const [before] = await deploymentsOf(world);
    await world.kube.delete(DEPLOYMENTS, { namespace: world.namespace, name: before?.metadata.name ?? "" });
    await world.until("another Deployment has a worker", async () => {
      const [now] = await deploymentsOf(world);
      return now && now.metadata.uid !== before?.metadata.uid && workersOf(world).length === 1;
    });
  });

  test("counts and reports a busy worker that was deleted", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world));
    const { metrics } = world.startOperator();
    await busyWith(world, 1);
    const [pod] = await untilThereAre(world, 1);
    await world.kube.delete(PODS, { namespace: world.namespace, name: pod?.metadata.name ?? "" });
    const [event] = await world.until("an Event", () => {
      const events = world.events("WorkerEndedWhileBusy");
      return events.length > 0 && events;
    });
    expect(event?.message).toContain(pod?.metadata.name);
    expect(await metricValue(metrics.workersEndedWhileBusy, {})).toBe(1);
  });

  test("keeps all workers while a busy one is not Ready, since it would be ended first", async () => {
    await using world = await pollersWorld(cluster);
    const gate = "test.berth.dev/ok";
    const say = async (pod: Pod, status: "True" | "False") => {
      const ref = { namespace: world.namespace, name: pod.metadata.name ?? "" };
      const patch = { status: { conditions: [{ type: gate, status }] } };
      await world.kube.patch(PODS, ref, patch, { type: "strategic", subresource: "status" });
    };
    await world.createEnvironment(
      workersSpec(world, { workers: { minReplicas: 3 }, podSpec: { readinessGates: [{ conditionType: gate }] } }),
    );
    const operator = world.startOperator();
    await world.until("three workers", () => workersOf(world).length === 3);
    for (const pod of workersOf(world)) await say(pod, "True");
    await untilWorkers(world, "three Ready workers", ({ ready }) => ready === 3);
    await busyWith(world, 1);
    const busy = await world.until("the busy worker has a deletion cost", () =>
      workersOf(world).find(({ metadata }) => metadata.annotations?.["controller.kubernetes.io/pod-deletion-cost"]),
    );
    await say(busy, "False");
    await untilWorkers(world, "one worker is not ready", ({ ready }) => ready === 2);
    await world.patchSpec({ workers: { minReplicas: 0 } });
    const held = await world.untilCondition("ScalingActive", "ScaleDownHeld");
    expect(held.message).toContain("not Ready");
    expect(workersOf(world)).toHaveLength(3);
    await say(busy, "True");
    await untilWorkers(
      world,
      "only the busy worker is left",
      ({ replicas, busy: count }) => replicas === 1 && count === 1,
    );
    expect(uids(workersOf(world))).toEqual([busy.metadata.uid]);
    await noWorkerEndedBusy(world, operator);
  });
});

describe.concurrent("an Environment that is deleted", () => {
  test("deletes idle workers immediately, busy ones once they are idle, and then the Environment", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world, { workers: { minReplicas: 2 } }));
    await world.patchSpec({ deletionGraceSeconds: 600 });
    const operator = world.startOperator();
    const [item] = await busyWith(world, 1);
    await world.deleteEnvironment();
    await untilWorkers(world, "only the busy worker is left", ({ replicas }) => replicas === 1);
    expect(world.simulator.item(item?.id ?? "").state).toBe("active");
    await world.untilCondition("Ready", "Deleting");
    world.simulator.stopItem(item?.id ?? "");
    await world.until("the Environment and everything of it is gone", async () => {
      return !world.environment && workersOf(world).length === 0 && (await deploymentsOf(world)).length === 0;
    });
    await noWorkerEndedBusy(world, operator);
  });

  test("ends busy workers after its grace period and stops their items, and nothing is left", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment({ ...workersSpec(world), deletionGraceSeconds: 1 });
    const { metrics } = world.startOperator();
    const [item] = await busyWith(world, 1);
    await world.deleteEnvironment();
    await world.until("the Environment and everything of it is gone", async () => {
      return !world.environment && world.pods.length === 0 && (await deploymentsOf(world)).length === 0;
    });
    expect(world.simulator.item(item?.id ?? "").state).toBe("stopped");
    expect(await metricValue(metrics.workersEndedWhileBusy, {})).toBeLessThanOrEqual(1);
    world.simulator.assertNoViolations();
  });

  test("is deleted immediately without an operator if it has no worker", async () => {
    await using world = await pollersWorld(cluster);
    await world.createEnvironment(workersSpec(world));
    const operator = world.startOperator();
    await world.untilCondition("Ready", "Ready");
    await operator.stop();
    await world.deleteEnvironment();
    await world.until("the Environment is gone", () => !world.environment);
  });
});

test("a restarted operator ends no busy worker, adds none, and adds its finalizer again", async () => {
  await using world = await pollersWorld(cluster);
  await world.createEnvironment(workersSpec(world));
  const first = world.startOperator();
  const items = await busyWith(world, 2);
  const pods = uids(await untilThereAre(world, 2));
  await noWorkerEndedBusy(world, first);
  await first.stop();
  const ref = { namespace: world.namespace, name: world.name };
  await world.kube.patch(ENVIRONMENTS, ref, { metadata: { finalizers: null } }, { type: "merge" });
  const second = world.startOperator();
  await world.until("the finalizer is back", () => world.environment?.metadata.finalizers?.includes(FINALIZER));
  await world.until("the new operator has probed the workers", async () => {
    return (await metricValue(second.metrics.workerProbes, { answer: "busy" })) > 4;
  });
  await untilWorkers(world, "two busy workers", ({ busy, desired }) => busy === 2 && desired === 2);
  expect(uids(workersOf(world))).toEqual(pods);
  for (const { id } of items) world.simulator.stopItem(id);
  await untilWorkers(world, "no worker is left", ({ replicas }) => replicas === 0);
  await noWorkerEndedBusy(world, second);
});
