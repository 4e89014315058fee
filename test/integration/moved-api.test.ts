import { expect, test } from "vitest";
import { startSimulator } from "../../simulator/simulator.ts";
import { useCluster } from "../support/cluster.ts";
import { OWN_PACE } from "../support/operator-lease-pace.ts";
import { SHORT_LEASE, serveOne, untilState } from "../support/session-life.ts";
import { startWorld } from "../support/world.ts";

const cluster = useCluster();

/** A session that would outlive the test, so the test stops it. */
const LONG_MS = 600_000;

test.each(["Worker", "Operator"] as const)(
  "lease: %s: after a change of api.baseUrl, a running session settles at its old address, and the new one is served",
  async (lease) => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      ...(lease === "Operator" && OWN_PACE),
      sessions: { lease },
      node: { fates: () => (lease === "Operator" ? { kind: "run" } : { kind: "worker", workMs: LONG_MS }) },
    });
    await using moved = await startSimulator(SHORT_LEASE.simulator);
    moved.createEnvironment({ id: world.environmentId, key: world.simulator.environmentKey(world.environmentId) });
    const { operator, item } = await serveOne(world);
    await untilState(world, item, "active");
    await operator.stop();
    const flags = ["--allowed-api-origins", `${world.simulator.url},${moved.url}`];
    const second = world.startOperator({ flags });
    await world.patchSpec({ api: { baseUrl: moved.url } });
    const there = moved.enqueue(world.environmentId);
    await world.until("the item at the new address runs", () => moved.item(there.id).state === "active");
    expect(world.simulator.item(item.id).state).toBe("active");
    await world.until("both claims exist", () => world.claims.length === 2);

    world.simulator.stopItem(item.id);
    await world.until("the claim at the old address is settled", () => world.claims.length === 1);
    expect(world.simulator.item(item.id).state).toBe("stopped");
    expect(moved.item(there.id).state).toBe("active");
    moved.stopItem(there.id);
    await world.until("everything is settled", () => world.claims.length === 0);
    expect(moved.item(there.id).state).toBe("stopped");
    await second.stop();
    world.simulator.assertNoViolations();
    moved.assertNoViolations();
  },
);

test("after a change of api.baseUrl to a forbidden address, nothing is claimed and sessions settle", async () => {
  await using world = await startWorld(cluster, {
    ...SHORT_LEASE,
    node: { fates: () => ({ kind: "worker", workMs: LONG_MS }) },
    spec: { network: { egress: { cidrs: ["10.20.0.0/16"] } } },
  });
  const { item } = await serveOne(world);
  await untilState(world, item, "active");
  const elsewhere = "https://elsewhere.example";
  await world.patchSpec({ api: { baseUrl: elsewhere } });
  const said = await world.untilCondition("QueueReachable", "OriginNotAllowed");
  expect(said.message).toContain(elsewhere);
  await world.until("no long poll waits", () => world.simulator.pollsWaiting(world.environmentId) === 0);
  const waiting = world.simulator.enqueue(world.environmentId);
  world.simulator.stopItem(item.id);
  await world.until("the running session is settled", () => world.claims.length === 0);
  expect(world.simulator.item(item.id).state).toBe("stopped");
  expect(world.simulator.item(waiting.id).acks).toEqual([]);

  await world.patchSpec({ api: { baseUrl: world.simulator.url } });
  await world.until("the waiting item runs", () => world.simulator.item(waiting.id).state === "active");
  await world.untilCondition("QueueReachable", "Reachable");
  world.simulator.stopItem(waiting.id);
  await world.untilServed(2);
  world.simulator.assertNoViolations();
});
