import { describe, expect, test } from "vitest";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { DEFAULT_BUDGET_LIMITS } from "../../src/work/budget.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { startWorld } from "../support/world.ts";

const cluster = useCluster();

const ITEMS = 15;
/** Far more than that many items take at the lowest rate. */
const PATIENCE_MS = 200_000;

describe.concurrent("a Work API that allows fewer requests than needed", () => {
  test("halves the rate of the whole group, and no item is lost or served twice", { timeout: 300_000 }, async () => {
    await using world = await startWorld(cluster, {
      simulator: { limits: { readsPerMinute: 240 } },
      sessions: { warm: 2, maxConcurrent: 4 },
    });
    const queue = await world.createQueue("other-key");
    await world.createEnvironment();
    await world.kube.create(ENVIRONMENTS, {
      metadata: { namespace: world.namespace, name: "other" },
      spec: world.spec(queue),
    } as never);
    const operator = world.startOperator();
    const { workRequests, workBudgetRate } = operator.metrics;
    let lowest = DEFAULT_BUDGET_LIMITS.initialRate;
    await world.until(
      "the request rate is halved",
      async () => {
        const rate = await metricValue(workBudgetRate, { group: "default" });
        if (rate > 0) lowest = Math.min(lowest, rate);
        return lowest <= DEFAULT_BUDGET_LIMITS.initialRate / 2;
      },
      PATIENCE_MS,
    );
    expect(await metricValue(workRequests, { code: "429" })).toBeGreaterThan(0);

    for (let item = 0; item < ITEMS; item += 1) {
      world.simulator.enqueue(world.environmentId);
      world.simulator.enqueue(queue.environmentId);
    }
    const items = () => [...world.simulator.items(world.environmentId), ...world.simulator.items(queue.environmentId)];
    await world.until(
      "all items are served and settled",
      () => items().every(({ state }) => state === "stopped") && world.claims.length === 0,
      PATIENCE_MS,
    );
    expect(items().map(({ acks }) => acks.length)).toEqual(Array(2 * ITEMS).fill(1));
    // No lease was lost for lack of requests: each item was stopped by its own worker.
    expect(items().filter(({ stoppedBy }) => stoppedBy?.as !== "sessions-token")).toEqual([]);
    world.simulator.assertNoViolations();
  });
});
