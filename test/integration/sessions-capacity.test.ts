import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";
import { LABEL_PHASE, LABEL_TEMPLATE_HASH } from "../../src/api/names.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import { readPodState } from "../../src/pods/pod-state.ts";
import { isAsleep } from "../../src/pods/turns.ts";
import { type FateInput, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { serveOne, untilGone, untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

/** Deletes surplus Pods after a second. */
const SOON = { timing: { warmScaleDownMs: 1_000 } };

const hanging: FateInput = { kind: "worker", end: "hang" };

const uidsOf = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata.uid).sort();
const labelsOf = (world: World) => ({ namespace: world.namespace, environment: world.name });

/** Pods that occupy capacity: all that have not ended. */
function taking(world: World): Pod[] {
  return world.pods.filter((pod) => readPodState(pod).is !== "ended");
}

/** A ResourceQuota for a number of Pods. */
const QUOTAS = { group: "", version: "v1", plural: "resourcequotas", kind: "ResourceQuota", namespaced: true };

describe.concurrent("the number of Pods", () => {
  test("warm Pods are parked, and no others", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 3 } });
    await world.createEnvironment();
    const operator = world.startOperator();
    await world.untilParked(3);
    await world.until("the status counts three warm Pods", () => world.environment?.status?.sessions?.warm === 3);
    expect(await metricValue(operator.metrics.podsCreated, labelsOf(world))).toBe(3);
    expect(world.pods).toHaveLength(3);
    expect(world.pods.map(({ metadata }) => metadata.labels?.[LABEL_PHASE])).toEqual(["warm", "warm", "warm"]);
  });

  test("from zero, the queue's depth creates one Pod per item, and none is left", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 0 }, ...SOON });
    let most = 0;
    world.onPodChange(() => {
      most = Math.max(most, taking(world).length);
    });
    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("Ready", "Ready");
    expect(world.pods).toEqual([]);
    for (let item = 0; item < 5; item += 1) world.simulator.enqueue(world.environmentId);
    await world.untilServed(5);
    await world.until("no Pod is left", () => world.pods.length === 0);
    expect(most, "Pods at a time").toBe(5);
    world.simulator.assertNoViolations();
  });

  test("a burst never exceeds maxConcurrent, and everything is served", async () => {
    await using world = await startWorld(cluster, {
      ...SOON,
      sessions: { warm: 2, maxConcurrent: 8 },
      node: { fates: () => ({ kind: "worker", workMs: { min: 50, max: 500 } }) },
    });
    let most = 0;
    world.onPodChange(() => {
      most = Math.max(most, taking(world).length);
    });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(2);
    for (let item = 0; item < 50; item += 1) world.simulator.enqueue(world.environmentId);
    await world.untilServed(50);
    expect(most).toBe(8);
    expect(world.simulator.items(world.environmentId).filter(({ acks }) => acks.length !== 1)).toEqual([]);
    world.simulator.assertNoViolations();
    await world.until("only the two warm Pods are left", () => world.pods.length === 2 && world.parked.length === 2);
  });

  test("surplus Pods are deleted", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 4 }, ...SOON });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(4);
    await world.patchSpec({ sessions: { warm: 1 } });
    await world.until("one Pod is left", () => world.pods.length === 1 && world.parked.length === 1);
    await world.until("no Secret is left", () => world.claims.length === 0);
  });

  test("a parked Pod that a user deletes is replaced and does not count as a failure", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment();
    const operator = world.startOperator();
    const [parked] = await world.untilParked(1);
    await world.untilCondition("CapacityAvailable", "Available");
    await world.kube.delete(PODS, { namespace: world.namespace, name: parked?.metadata.name ?? "" });
    await world.until("another Pod is parked", () =>
      world.parked.some(({ metadata }) => metadata.uid !== parked?.metadata.uid),
    );
    expect(await metricValue(operator.metrics.prepareFailures, labelsOf(world))).toBe(0);
    expect(world.condition("CapacityAvailable")?.reason).toBe("Available");
  });
});

describe.concurrent("replacement of parked Pods", () => {
  test("two or more expired Pods are replaced one at a time", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 3, parkedMaxAgeSeconds: 4 } });
    await world.createEnvironment();
    world.startOperator();
    const first = uidsOf(await world.untilParked(3));
    let fewest = 3;
    world.onPodChange(() => {
      fewest = Math.min(fewest, world.parked.length);
    });
    await world.until("all three Pods are replaced", () => {
      return world.parked.length === 3 && !uidsOf(world.parked).some((uid) => first.includes(uid));
    });
    expect(fewest).toBe(2);
  });

  test("a single Pod is deleted once its successor is parked", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 1, maxConcurrent: 1, parkedMaxAgeSeconds: 3 } });
    await world.createEnvironment();
    world.startOperator();
    const [first] = await world.untilParked(1);
    let fewest = 1;
    world.onPodChange(() => {
      fewest = Math.min(fewest, world.parked.length);
    });
    await world.until("the Pod is replaced", () => {
      return world.parked.length === 1 && world.parked[0]?.metadata.uid !== first?.metadata.uid;
    });
    expect(fewest).toBe(1);
  });

  test("a changed template replaces parked Pods but not the running session", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 2 }, node: { fates: () => hanging } });
    const { item, pod } = await serveOne(world);
    await untilState(world, item, "active");
    const before = uidsOf(await world.untilParked(2));
    const hash = pod.metadata.labels?.[LABEL_TEMPLATE_HASH];
    await world.patchSpec({ sessions: { template: { metadata: { labels: { version: "2" } } } } });
    await world.until("both Pods are replaced", () => {
      const now = world.parked;
      return now.length === 2 && now.every(({ metadata }) => metadata.labels?.version === "2") && now;
    });
    expect(uidsOf(world.parked).some((uid) => before.includes(uid))).toBe(false);
    expect(world.parked.some(({ metadata }) => metadata.labels?.[LABEL_TEMPLATE_HASH] === hash)).toBe(false);
    expect(world.simulator.item(item.id).state).toBe("active");
    expect(
      world.pods.find(({ metadata }) => metadata.uid === pod.metadata.uid)?.metadata.deletionTimestamp,
    ).toBeUndefined();
    world.simulator.stopItem(item.id, { force: true });
    await untilGone(world, pod);
    world.simulator.assertNoViolations();
  });
});

describe.concurrent("a capacity problem is reported and resolves on its own", () => {
  test("a quota", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 3 } });
    const metadata = { name: "few", namespace: world.namespace };
    await world.kube.create(QUOTAS, { metadata, spec: { hard: { pods: "1" } } } as never);
    await world.createEnvironment();
    const operator = world.startOperator();
    const condition = await world.untilCondition("CapacityAvailable", "QuotaExceeded");
    expect(condition.status).toBe("False");
    expect(condition.message).toContain("few");
    expect(world.condition("TemplateAccepted")?.status).toBe("True");
    expect(world.condition("Ready")?.reason).toBe("QuotaExceeded");
    await world.kube.patch(QUOTAS, metadata, { spec: { hard: { pods: "10" } } }, { type: "merge" });
    await world.untilParked(3);
    await world.untilCondition("CapacityAvailable", "Available");
    await world.untilCondition("Ready", "Ready");
    expect(
      await metricValue(operator.metrics.podCreateFailures, { ...labelsOf(world), reason: "quota" }),
    ).toBeGreaterThan(0);
  });

  test("no node: the Pod waits for one indefinitely and is not replaced", async () => {
    const pool = randomUUID();
    await using world = await startWorld(cluster, {
      podSpec: { nodeSelector: { pool } },
      sessions: { prepareTimeoutSeconds: 8, parkedMaxAgeSeconds: 0 },
    });
    await world.createEnvironment();
    const operator = world.startOperator();
    const condition = await world.untilCondition("CapacityAvailable", "Unschedulable");
    expect(condition.message).toContain("nodes are available");
    const waiting = uidsOf(world.pods);
    expect(waiting).toHaveLength(1);
    // Longer than prepareTimeoutSeconds.
    await world.until("prepareTimeoutSeconds have passed", () => {
      const created = Date.parse(world.pods[0]?.metadata.creationTimestamp ?? "");
      return Date.now() - created > 10_000;
    });
    expect(uidsOf(world.pods)).toEqual(waiting);
    await using _node = await startNode({ client: cluster.kubeconfig, name: `late-${pool}`, labels: { pool } });
    await world.untilParked(1);
    expect(uidsOf(world.parked)).toEqual(waiting);
    await world.untilCondition("CapacityAvailable", "Available");
    expect(await metricValue(operator.metrics.podsCreated, labelsOf(world))).toBe(1);
  });

  test("scheduling gates: the Pod waits for them, and no sleeping session loses its Pod for it", async () => {
    const gate = "example.com/held";
    await using world = await startWorld(cluster, {
      container: { command: ["worker"] },
      podSpec: { schedulingGates: [{ name: gate }] },
      sessions: { warm: 0, workspace: { type: "Pod", sleepSeconds: 600 } },
    });
    const untilGated = () =>
      world.until("a Pod is gated", () => world.pods.find(({ spec }) => (spec.schedulingGates ?? []).length > 0));
    const admit = async () => {
      const { metadata } = await untilGated();
      const ref = { namespace: world.namespace, name: metadata.name ?? "" };
      await world.kube.patch(PODS, ref, { spec: { schedulingGates: null } }, { type: "merge" });
    };
    await world.createEnvironment();
    world.startOperator();
    world.simulator.enqueue(world.environmentId);
    await admit();
    const asleep = () => world.pods.find((pod) => isAsleep(pod) && readPodState(pod).is === "parked");
    const { metadata } = await world.until("the session sleeps", asleep);
    world.simulator.enqueue(world.environmentId);
    await untilGated();
    const condition = await world.untilCondition("CapacityAvailable", "SchedulingGated");
    expect(condition.message).toContain(gate);
    expect(asleep()?.metadata.uid).toBe(metadata.uid);
    await admit();
    await world.untilServed(2);
    await world.untilCondition("CapacityAvailable", "Available");
    world.simulator.assertNoViolations();
  });

  test("an image that can't be pulled", async () => {
    await using world = await startWorld(cluster, {
      node: { timeScale: 10, fates: () => ({ kind: "pull-error", times: 3 }) },
    });
    await world.createEnvironment();
    world.startOperator();
    const condition = await world.untilCondition("CapacityAvailable", "ImagePullFailing");
    expect(condition.message).toMatch(/pull/);
    expect(world.condition("Ready")?.reason).toBe("ImagePullFailing");
    await world.untilParked(1);
    await world.untilCondition("CapacityAvailable", "Available");
    await world.untilCondition("Ready", "Ready");
  });

  test("a Pod that isn't ready within prepareTimeoutSeconds is replaced after a pause", async () => {
    let first = "";
    await using world = await startWorld(cluster, {
      sessions: { prepareTimeoutSeconds: 8 },
      node: {
        fates: ({ metadata: { name = "" } }) => {
          first ||= name;
          return name === first ? { kind: "never-starts" } : { kind: "worker" };
        },
      },
    });
    await world.createEnvironment();
    const operator = world.startOperator();
    const condition = await world.untilCondition("CapacityAvailable", "PreparationFailing");
    expect(condition.message).toContain("prepareTimeoutSeconds");
    await world.untilParked(1);
    await world.untilCondition("CapacityAvailable", "Available");
    const failures = await metricValue(operator.metrics.prepareFailures, {
      ...labelsOf(world),
      reason: "PrepareTimeout",
    });
    expect(failures).toBe(1);
    expect(await metricValue(operator.metrics.podsCreated, labelsOf(world))).toBe(2);
  });
});

describe.concurrent("paused", () => {
  test("claims nothing and leaves sessions running, then serves the waiting items", async () => {
    await using world = await startWorld(cluster, { node: { fates: () => hanging } });
    const { item } = await serveOne(world);
    await untilState(world, item, "active");
    await world.patchSpec({ paused: true });
    await world.untilCondition("Ready", "Paused");
    await world.until("polls have ended", () => world.simulator.pollsWaiting(world.environmentId) === 0);
    const waiting = world.simulator.enqueue(world.environmentId);
    await world.until("the status counts the item", () => world.environment?.status?.queue?.depth === 1);
    expect(world.simulator.item(waiting.id).offers).toEqual([]);
    expect(world.simulator.item(item.id).state).toBe("active");
    await world.patchSpec({ paused: false });
    await untilState(world, waiting, "active");
    for (const { id } of [item, waiting]) world.simulator.stopItem(id, { force: true });
    await world.untilServed(2);
    world.simulator.assertNoViolations();
  });
});
