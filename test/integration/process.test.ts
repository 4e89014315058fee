import { expect, test } from "vitest";
import { LEASES } from "../../src/kube/resource.ts";
import { useCluster } from "../support/cluster.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

/** A replica with leader election, as in an installation, with a health server. */
const REPLICA = { leaderElect: true, flags: ["--health-probe-bind-address", "127.0.0.1:0"] };

async function holder(world: World): Promise<string | undefined> {
  const lease = await world.kube.get(LEASES, { namespace: world.namespace, name: "berth" });
  return lease.spec?.holderIdentity;
}

async function text(address: string | undefined, path: string): Promise<{ status: number; body: string }> {
  const response = await fetch(`http://${address}${path}`);
  return { status: response.status, body: await response.text() };
}

test("SIGTERM ends the leader with exit code 0 while sessions run, and the other replica continues them", async () => {
  await using world = await startWorld(cluster, {
    node: { fates: () => ({ kind: "worker", workMs: { min: 1_000, max: 4_000 } }) },
    sessions: { warm: 3, maxConcurrent: 10 },
  });
  await world.createEnvironment();
  const first = await world.startOperatorProcess(REPLICA);
  await world.untilParked(3);
  const leader = await holder(world);
  const second = await world.startOperatorProcess(REPLICA);
  const { done } = world.simulator.arrivals(world.environmentId, { kind: "poisson", ratePerSecond: 4, count: 24 });
  await world.until("sessions run", () => world.simulator.items().some(({ state }) => state === "active"));

  first.process.signal("SIGTERM");

  expect(await first.process.ended).toBe(0);
  expect(first.process.log.at(-1)?.msg).toBe("berth stops");
  await world.until("the other replica leads", async () => {
    const now = await holder(world);
    return now !== "" && now !== undefined && now !== leader;
  });
  await world.untilServed(await done);
  world.simulator.assertNoViolations();
  const served = world.simulator
    .items()
    .filter(({ firstBeatAt, acks }) => firstBeatAt !== undefined && acks.length === 1);
  expect(served).toHaveLength(24);
  expect(second.process.log.filter(({ level }) => level === "error" || level === "fatal")).toEqual([]);
});

test("a replica that waits for the Lease is ready, and both serve health and metrics", async () => {
  await using world = await startWorld(cluster);
  await world.createEnvironment();
  const replicas = [await world.startOperatorProcess(REPLICA), await world.startOperatorProcess(REPLICA)];
  await world.untilCondition("Ready", "Ready");
  for (const { process } of replicas) {
    expect(await text(process.addresses.health, "/healthz")).toMatchObject({ status: 200 });
    // Its caches are filled soon, whether or not it leads.
    await world.until(
      "the operator is ready",
      async () => (await text(process.addresses.health, "/readyz")).status === 200,
    );
  }
  const metrics = await Promise.all(replicas.map(({ process }) => text(process.addresses.metrics, "/metrics")));
  expect(metrics.map(({ body }) => /^berth_leader\{lease="berth"\} (\d)/m.exec(body)?.[1]).sort()).toEqual(["0", "1"]);
});
