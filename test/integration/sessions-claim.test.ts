import { describe, expect, test } from "vitest";
import type { FaultInput } from "../../simulator/faults.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { SHORT_LEASE } from "../support/session-life.ts";
import { type InProcessOperator, startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

type Claims = Parameters<typeof metricValue>[0];

/** Starts an operator, injects the faults, queues one item, and waits until it was served. */
async function serveThrough(world: World, faults: readonly FaultInput[]): Promise<InProcessOperator> {
  await world.createEnvironment();
  const operator = world.startOperator();
  await world.untilParked(1);
  for (const fault of faults) world.simulator.inject(fault);
  world.simulator.enqueue(world.environmentId);
  await world.untilServed(1);
  return operator;
}

function count(world: World, metric: Claims, result: string): Promise<number> {
  return metricValue(metric, { namespace: world.namespace, environment: world.name, result });
}

/** The one item was acknowledged once, its own worker took its lease and stopped it, and the protocol holds. */
function expectServedOnce(world: World): void {
  const [item] = world.simulator.items(world.environmentId);
  // A repeated or renewed acknowledgement counts once per generation of the item.
  expect(new Set(item?.acks.map(({ generation }) => generation)).size).toBe(1);
  expect(item?.refusedBeats).toBe(0);
  expect(item?.stoppedBy?.as).toBe("sessions-token");
  world.simulator.assertNoViolations();
}

describe.concurrent("one claim, one fault", () => {
  test("a poll's reply is lost with its secret: the item is served at its next offer", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    world.simulator.enqueue(world.environmentId);
    world.simulator.inject({ kind: "lost-reply", call: "poll", times: 1 });
    await world.createEnvironment();
    world.startOperator();
    await world.untilServed(1);
    expectServedOnce(world);
    expect(world.simulator.items(world.environmentId)[0]?.offers.length).toBeGreaterThanOrEqual(2);
  });

  test("an acknowledgement is refused: its Secret is deleted, and its slot serves the next offer", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, sessions: { maxConcurrent: 1 } });
    const operator = await serveThrough(world, [{ kind: "status", status: 409, call: "ack", times: 1 }]);
    expectServedOnce(world);
    expect(await count(world, operator.metrics.acks, "refused")).toBe(1);
    expect(await metricValue(operator.metrics.podsCreated, { namespace: world.namespace })).toBeLessThanOrEqual(2);
  });

  test("an acknowledgement is lost: it is sent again inside its window", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    const operator = await serveThrough(world, [{ kind: "reset", call: "ack", times: 1 }]);
    expectServedOnce(world);
    expect(await count(world, operator.metrics.acks, "unanswered")).toBe(1);
    expect(await count(world, operator.metrics.acks, "acked")).toBe(1);
  });

  test.each(["refused", "unchanged", "renewed"] as const)(
    "the answer is lost and a second acknowledgement is %s: the list shows that the item is ours",
    async (secondAck) => {
      await using world = await startWorld(cluster, {
        ...SHORT_LEASE,
        simulator: { ...SHORT_LEASE.simulator, switches: { secondAck } },
      });
      const operator = await serveThrough(world, [{ kind: "lost-reply", call: "ack", times: 1 }]);
      expectServedOnce(world);
      const [acked, found] = [
        await count(world, operator.metrics.acks, "acked"),
        await count(world, operator.metrics.acks, "found"),
      ];
      // A refusal proves nothing. Any other answer may come too late on a busy machine.
      expect(secondAck === "refused" ? found : acked + found).toBe(1);
    },
  );

  test("all answers are lost: the item is found in the list after the window", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    const operator = await serveThrough(world, [{ kind: "lost-reply", call: "ack", times: 50 }]);
    expectServedOnce(world);
    expect(await count(world, operator.metrics.acks, "found")).toBe(1);
  });

  test("no acknowledgement gets through in its window: the claim is dropped, and the next offer served", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, sessions: { maxConcurrent: 1 } });
    const started = world.until(
      "the claim is dropped",
      () => world.simulator.faults().length === 1 && world.claims.length === 1,
    );
    const served = serveThrough(world, [{ kind: "hang", call: "ack" }]);
    await started;
    await world.until("the Secret is gone again", () => world.claims.length === 0);
    expect(world.simulator.items(world.environmentId)[0]?.state).toBe("queued");
    world.simulator.clearFaults();
    const operator = await served;
    expectServedOnce(world);
    expect(await count(world, operator.metrics.claims, "dropped")).toBe(1);
  });

  test("an acknowledgement is slow but lands inside the window: the item is ours", async () => {
    await using world = await startWorld(cluster, SHORT_LEASE);
    const operator = await serveThrough(world, [{ kind: "latency", ms: 2_000, call: "ack" }]);
    expectServedOnce(world);
    expect(await count(world, operator.metrics.acks, "found")).toBe(1);
  });

  test("an acknowledgement lands after its Secret was dropped: the item expires and is served again", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      simulator: { limits: { ttlSeconds: 8, startingTimeoutSeconds: 3 } },
    });
    await serveThrough(world, [{ kind: "latency", ms: 9_000, call: "ack", times: 3 }]);
    const [item] = world.simulator.items(world.environmentId);
    expect(item?.acks.length).toBeGreaterThan(1);
    expect(item?.stoppedBy?.as).toBe("sessions-token");
    world.simulator.assertNoViolations();
  });

  test("an item that is offered again during its claim is not claimed twice", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, sessions: { warm: 3 } });
    const operator = await serveThrough(world, [
      { kind: "latency", ms: 1_000, call: "ack", times: 1 },
      { kind: "duplicate-offer", times: 2 },
    ]);
    expectServedOnce(world);
    expect(await count(world, operator.metrics.claims, "duplicate")).toBe(2);
    expect(await count(world, operator.metrics.journals, "created")).toBe(1);
  });

  test("a health check with lost answers is still stopped", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, simulator: { switches: { starting: "never" } } });
    await world.createEnvironment();
    world.startOperator();
    await world.untilParked(1);
    for (const call of ["ack", "stop"] as const) world.simulator.inject({ kind: "lost-reply", call, times: 1 });
    world.simulator.enqueue(world.environmentId, { type: "healthcheck" });
    await world.untilServed(1);
    world.simulator.assertNoViolations();
  });
});
