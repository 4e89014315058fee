import { describe, expect, test } from "vitest";
import { DEFAULT_TIMING, scaleTiming } from "../../src/core/timing.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

const good: FateInput = { kind: "worker", workMs: 100 };

/** Faults that only show when a container starts, and the kubelet's message. */
const FAULTS: [string, FateInput, RegExp][] = [
  ["a command that is not in the image", { kind: "start-error" }, /no such file or directory/],
  ["an image that runs as root despite runAsNonRoot", { kind: "root-image" }, /runAsNonRoot/],
  [
    "an image that fails right after its start",
    { kind: "exit", code: 1, afterMs: 0, message: "bad config" },
    /bad config/,
  ],
];

/**
 * The first probe after failed starts comes after a minute, as in production: far beyond the duration of these tests.
 */
const SLOW_PROBE = { timeScale: 5 } as const;
const slowProbe = {
  timing: { ...scaleTiming(DEFAULT_TIMING, SLOW_PROBE.timeScale), probeFirstMs: DEFAULT_TIMING.probeFirstMs },
};

async function untilOpen(world: World, queued: number): Promise<void> {
  for (let item = 0; item < queued; item += 1) world.simulator.enqueue(world.environmentId);
  await world.untilCondition("SessionsStarting", "StartsFailing");
}

const served = (world: World) => world.simulator.items(world.environmentId).filter(({ state }) => state === "stopped");

describe.concurrent("three consecutive start failures stop the claims of a template", () => {
  test.each(FAULTS)(
    "%s: the rest of the queue stays untouched, and claims continue after a change of the spec",
    async (_what, fault, words) => {
      let fate = fault;
      await using world = await startWorld(cluster, {
        ...SLOW_PROBE,
        sessions: { warm: 1, maxConcurrent: 1 },
        node: { fates: () => fate },
      });
      await world.createEnvironment();
      const operator = world.startOperator({ seams: slowProbe });
      await world.untilParked(1);
      await untilOpen(world, 7);
      const condition = world.condition("SessionsStarting");
      expect(condition?.status).toBe("False");
      expect(condition?.message).toMatch(words);
      await world.until(
        "three items are stopped and no claim is left",
        () => served(world).length === 3 && world.claims.length === 0,
      );
      await world.untilParked(1);
      const rest = world.simulator.items(world.environmentId).filter(({ state }) => state === "queued");
      expect(rest).toHaveLength(4);
      expect(rest.filter(({ acks }) => acks.length > 0)).toEqual([]);
      expect(world.condition("Ready")?.reason).toBe("StartsFailing");
      const labels = { namespace: world.namespace, environment: world.name };
      expect(await metricValue(operator.metrics.startsFailing, labels)).toBe(1);
      expect(await metricValue(operator.metrics.startFailures, labels)).toBe(3);

      fate = good;
      await world.patchSpec({ sessions: { template: { metadata: { labels: { version: "2" } } } } });
      await world.untilServed(7);
      await world.untilCondition("SessionsStarting", "Starting");
      await world.untilCondition("Ready", "Ready");
      expect(await metricValue(operator.metrics.startsFailing, labels)).toBe(0);
      world.simulator.assertNoViolations();
    },
  );
});

describe.concurrent("a template that has not served yet", () => {
  test("costs at most three items, however many Pods are parked and items queued", async () => {
    await using world = await startWorld(cluster, {
      ...SLOW_PROBE,
      sessions: { warm: 8, maxConcurrent: 20 },
      node: { fates: () => ({ kind: "exit", code: 1, afterMs: 0 }) },
    });
    await world.createEnvironment();
    world.startOperator({ seams: slowProbe });
    await world.untilParked(8);
    await untilOpen(world, 30);
    await world.until("all are settled", () => world.claims.length === 0);
    const acknowledged = world.simulator.items(world.environmentId).filter(({ acks }) => acks.length > 0);
    expect(acknowledged).toHaveLength(3);
    world.simulator.assertNoViolations();
  });

  test("serves in parallel once one of its sessions has started", async () => {
    await using world = await startWorld(cluster, {
      sessions: { warm: 8, maxConcurrent: 20 },
      node: { fates: () => ({ kind: "worker", end: "hang" }) },
    });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(8);
    for (let item = 0; item < 8; item += 1) world.simulator.enqueue(world.environmentId);
    const items = () => world.simulator.items(world.environmentId);
    await world.until("all items run", () => items().every(({ state }) => state === "active"));
    expect(items().filter(({ acks }) => acks.length !== 1)).toEqual([]);
    for (const { id } of items()) world.simulator.stopItem(id, { force: true });
    await world.untilServed(8);
    world.simulator.assertNoViolations();
  });
});

describe.concurrent("failing starts", () => {
  test("tries one item occasionally, and closes when a session serves", async () => {
    let fate: FateInput = { kind: "start-error" };
    await using world = await startWorld(cluster, { sessions: { maxConcurrent: 2 }, node: { fates: () => fate } });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    await untilOpen(world, 8);
    const tried = served(world).length;
    await world.until("one more probe has ended", () => served(world).length > tried);
    expect(world.simulator.items(world.environmentId).filter(({ state }) => state === "starting").length).toBeLessThan(
      2,
    );
    fate = good;
    await world.untilServed(8);
    await world.untilCondition("SessionsStarting", "Starting");
    world.simulator.assertNoViolations();
  });

  test("is recovered by the next process from its finished Pods", async () => {
    await using world = await startWorld(cluster, {
      ...SLOW_PROBE,
      sessions: { warm: 1, maxConcurrent: 1, retainFailedSeconds: 600 },
      node: { fates: () => ({ kind: "start-error" }) },
    });
    await world.createEnvironment();
    const first = world.startOperator({ seams: slowProbe });
    await world.untilParked(1);
    await untilOpen(world, 6);
    await world.until(
      "three items are stopped and no claim is left",
      () => served(world).length === 3 && world.claims.length === 0,
    );
    await first.stop();
    await world.patchSpec({ deletionGraceSeconds: 6 });
    // Until the cache shows the new generation, the previous process's status looks like the next one's.
    await world.caughtUp("environments");
    world.startOperator({ seams: slowProbe });
    await world.until("the new operator has written the status", () => {
      return world.environment?.status?.observedGeneration === world.environment?.metadata.generation;
    });
    expect(world.condition("SessionsStarting")?.reason).toBe("StartsFailing");
    expect(served(world)).toHaveLength(3);
    world.simulator.assertNoViolations();
  });

  test("a session that served in between restarts the count", async () => {
    let items = 0;
    await using world = await startWorld(cluster, {
      sessions: { warm: 1, maxConcurrent: 1 },
      // Every third item is served.
      node: { fates: () => (items % 3 === 0 ? good : { kind: "start-error" }) },
    });
    world.simulator.on("item", (_record, event) => {
      if (event === "acknowledged") items += 1;
    });
    await world.createEnvironment();
    world.startOperator();
    for (let item = 0; item < 9; item += 1) world.simulator.enqueue(world.environmentId);
    await world.untilServed(9);
    await world.caughtUp("events");
    expect(world.events("StartsFailing")).toEqual([]);
    world.simulator.assertNoViolations();
  });
});
