import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { bashScript } from "../../simulator/script.ts";
import type { Pod } from "../../src/kube/resource.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { SHORT_LEASE, serveOne, untilState } from "../support/session-life.ts";
import { type InProcessOperator, startWorld, type World, type WorldOptions } from "../support/world.ts";

const cluster = useCluster();

/** A world whose Pods get these fates in turn. The last fate is also that of all later Pods. */
function releasing(fates: readonly FateInput[], { sessions, ...options }: WorldOptions = {}): Promise<World> {
  const left = [...fates];
  const fateOf = new Map<string, FateInput | undefined>();
  // The node requests a Pod's fate more than once.
  const next = ({ metadata: { uid = "" } }: Pod) => {
    if (!fateOf.has(uid)) fateOf.set(uid, left.length > 1 ? left.shift() : left[0]);
    return fateOf.get(uid);
  };
  return startWorld(cluster, {
    ...SHORT_LEASE,
    node: { fates: next },
    sessions: { onPodFailure: "Release", warm: 0, maxConcurrent: 1, retainFailedSeconds: 600, ...sessions },
    ...options,
  });
}

/** Creates an Environment, an operator and one item. Resolves when the item has been served and settled. */
async function served(world: World) {
  await world.createEnvironment();
  const operator = world.startOperator();
  const { id } = world.simulator.enqueue(world.environmentId);
  await world.until("the item is stopped", () => world.simulator.item(id).state === "stopped", PATIENCE_MS);
  await world.until("no claim is left", () => world.claims.length === 0);
  world.simulator.assertNoViolations();
  return {
    operator,
    item: world.simulator.item(id),
    events: world.simulator.item(id).history.map(({ event }) => event),
  };
}

/** Sessions are counted a moment after their claim is gone. */
function untilCounted(world: World, { metrics }: InProcessOperator, reason: string, count: number): Promise<true> {
  return world.until(
    `${count} sessions ended as ${reason}`,
    async () => (await metricValue(metrics.sessionsEnded, { reason })) === count,
  );
}

const PATIENCE_MS = 90_000;
const fine: FateInput = { kind: "worker", workMs: 300 };
const AGAIN = "lease lapsed, queued again";

describe.concurrent("onPodFailure: Release", () => {
  test("lease: Worker, out of memory: the lease lapses, the item is requeued, and another Pod serves it", async () => {
    await using world = await releasing([{ kind: "worker", workMs: 300, end: "oom" }, fine]);
    const { operator, item, events } = await served(world);
    expect(events.filter((event) => event !== "offered")).toEqual([
      "created",
      "acknowledged",
      "first heartbeat",
      AGAIN,
      "acknowledged",
      "first heartbeat",
      "stopped by force",
    ]);
    expect(item.stoppedBy?.as).toBe("sessions-token");
    await untilCounted(world, operator, "OOMKilled", 1);
    await untilCounted(world, operator, "Completed", 1);
  });

  test("lease: Operator, killed: the operator sends no more heartbeats, and the item is served again", async () => {
    await using world = await releasing(
      [
        { kind: "killed", afterMs: 2_000 },
        { kind: "exit", code: 0, afterMs: 500 },
      ],
      { sessions: { lease: "Operator" } },
    );
    const { operator, item, events } = await served(world);
    expect(events.filter((event) => event === AGAIN)).toHaveLength(1);
    expect(item.acks).toHaveLength(2);
    expect(item.stoppedBy?.as).toBe("environment-key");
    expect(await metricValue(operator.metrics.leasesLost, {})).toBe(0);
  });

  test("never started: one heartbeat is sent, so that the item does not stay `starting` forever", async () => {
    await using world = await releasing([{ kind: "start-error" }, fine], {
      simulator: { limits: { ttlSeconds: 8 }, switches: { starting: "never" } },
    });
    const { item, events } = await served(world);
    expect(events).toContain(AGAIN);
    expect(item.stoppedBy?.as).toBe("sessions-token");
  });

  test("a container that exits on its own is settled as usual, whatever its exit code", async () => {
    await using world = await releasing([{ kind: "exit", code: 3, afterMs: 500 }]);
    const { item, events } = await served(world);
    expect(events).not.toContain(AGAIN);
    expect(item.stoppedBy?.as).toBe("environment-key");
    expect(item.acks).toHaveLength(1);
  });

  test("an item told to stop while its lease lapses is stopped, since no client would run it again", async () => {
    await using world = await releasing([{ kind: "worker", workMs: 300, end: "oom" }], {
      simulator: { limits: { ttlSeconds: 20 }, switches: { lapsedStopping: "stays" } },
      sessions: { warm: 1 },
    });
    const { item, pod } = await serveOne(world);
    await world.until("the container has ended", () =>
      world.pods.some(
        ({ metadata, status }) =>
          metadata.uid === pod.metadata.uid && status?.containerStatuses?.some(({ state }) => state?.terminated),
      ),
    );
    world.simulator.stopItem(item.id);
    const last = await untilState(world, item, "stopped");
    expect(last.stoppedBy?.as).toBe("environment-key");
    expect(last.acks).toHaveLength(1);
    await world.until("no claim is left", () => world.claims.length === 0);
    world.simulator.assertNoViolations();
  });

  test("a session that kills its Pod every time is stopped after some releases", async () => {
    await using world = await releasing([{ kind: "worker", workMs: 300, end: "oom" }]);
    const { operator, item } = await served(world);
    expect(item.acks).toHaveLength(4);
    expect(item.stoppedBy?.as).toBe("environment-key");
    await untilCounted(world, operator, "OOMKilled", 4);
  });

  test("the tool runner is killed like by its memory limit, and its session continues in another Pod", async () => {
    const runner = fileURLToPath(new URL("../../examples/worker/tool-runner.mjs", import.meta.url));
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      node: { runtime: "process", fates: () => undefined },
      container: { command: [process.execPath, runner], env: [{ name: "MAX_IDLE_MS", value: "300" }] },
      sessions: { lease: "Operator", onPodFailure: "Release", maxConcurrent: 1 },
    });
    const { turns: [work] = [] } = bashScript("echo once");
    const { turns: [more] = [] } = bashScript("echo twice");
    const { item, pod } = await serveOne(world, {
      script: { turns: [work ?? {}, { ...more, delayMs: 3_000 }] },
    });
    const session = () => world.simulator.session(item.sessionId ?? "");
    await world.until("the first tool call is answered", () => session().toolCalls[0]?.answeredAt);
    expect(world.node.kill({ namespace: world.namespace, name: pod.metadata.name })).toBe(true);
    await world.until("the item is stopped", () => world.simulator.item(item.id).state === "stopped", PATIENCE_MS);
    expect(session().toolCalls.map(({ output }) => output)).toEqual(["once", "twice"]);
    expect(world.simulator.item(item.id).acks).toHaveLength(2);
    await world.until("no claim is left", () => world.claims.length === 0);
    world.simulator.assertNoViolations();
  });
});
