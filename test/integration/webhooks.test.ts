import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { newWebhookSecret } from "../../simulator/webhooks.ts";
import { DEFAULT_TIMING, scaleTiming } from "../../src/core/timing.ts";
import { useCluster } from "../support/cluster.ts";
import { freePort } from "../support/free-port.ts";
import { metricValue } from "../support/metric-value.ts";
import { type InProcessOperator, startWorld, TEST_TIME_SCALE, type World } from "../support/world.ts";

const cluster = useCluster();

/** Longer than the test, so that only a hint can start anything. */
const NEVER_MS = 3_600_000;

/** An operator that polls once an hour and receives the simulator's webhooks. */
async function startHinted(
  world: World,
  given: { address?: string; leaderElect?: boolean; secret?: string; flags?: readonly string[] } = {},
): Promise<AsyncDisposable & { readonly operator: InProcessOperator; readonly secret: string }> {
  const { address = "127.0.0.1:0", leaderElect = false, secret = newWebhookSecret(), flags = [] } = given;
  const folder = await mkdtemp(join(tmpdir(), "berth-webhook-"));
  await writeFile(join(folder, "endpoint"), `${newWebhookSecret()}\n`);
  await writeFile(join(folder, "next"), secret);
  const listening = Promise.withResolvers<string>();
  const operator = world.startOperator({
    leaderElect,
    flags: ["--webhook-bind-address", address, "--webhook-secrets", folder, ...flags],
    seams: {
      timing: {
        ...scaleTiming(DEFAULT_TIMING, TEST_TIME_SCALE),
        idleAfterMs: 0,
        pollIdleGapMs: NEVER_MS,
        statsIdleMs: NEVER_MS,
        statsPolledMs: NEVER_MS,
        // A busy machine is not a replica that doesn't answer, and takes longer than a scaled window to claim an item. An item
        // that was claimed too late would only be found by another poll.
        passTimeoutMs: NEVER_MS,
        othersReclaimMs: DEFAULT_TIMING.othersReclaimMs,
        ownReclaimMs: DEFAULT_TIMING.ownReclaimMs,
      },
      onListening: ({ webhook }) => listening.resolve(webhook ?? ""),
    },
  });
  const url = `http://${await listening.promise}/webhook`;
  world.simulator.sendWebhooks({ url, secret, copies: 2 });
  return { operator, secret, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

/** The number of polls so far, including one that is waiting. */
const polls = (world: World) =>
  world.simulator.requests(world.environmentId).filter(({ call }) => call === "poll").length;

describe.concurrent("signed webhooks of the platform", () => {
  test("start sessions immediately in an Environment that rarely polls", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 1, maxConcurrent: 3 } });
    await using hinted = await startHinted(world);
    await world.createEnvironment();
    await world.untilParked(1);
    await world.until("the first poll has ended", () => polls(world) > 0);
    for (let session = 1; session <= 3; session += 1) {
      world.simulator.enqueue(world.environmentId);
      await world.untilServed(session);
      await world.untilParked(1);
    }
    const { webhookDeliveries, hintedItems } = hinted.operator.metrics;
    expect(await metricValue(hintedItems, { result: "hinted" })).toBe(3);
    await world.until(
      "duplicates are counted",
      async () => (await metricValue(webhookDeliveries, { result: "duplicate" })) >= 3,
    );
    expect(await metricValue(webhookDeliveries, { result: "forged" })).toBe(0);
    expect(world.simulator.deliveries.filter(({ status }) => status !== 204)).toEqual([]);
    world.simulator.assertNoViolations();
  });

  test("make the operator read queue statistics when there are no warm Pods", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 0, maxConcurrent: 1 } });
    await using hinted = await startHinted(world);
    await world.createEnvironment();
    await world.until("the queue is read", () => world.environment?.status?.queue?.depth === 0);
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    expect(await metricValue(hinted.operator.metrics.hintedItems, { result: "hinted" })).toBe(1);
    world.simulator.assertNoViolations();
  });

  test("reach the replica that serves, whichever replica received them", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 1, maxConcurrent: 3 } });
    const port = await freePort();
    const serving = await startHinted(world, { address: `127.0.0.2:${port}`, leaderElect: true });
    await world.createEnvironment();
    await world.untilParked(1);
    // It waits for the other one's Lease. The simulator sends to the last one that was started.
    const waiting = await startHinted(world, {
      address: `127.0.0.1:${port}`,
      leaderElect: true,
      secret: serving.secret,
      flags: ["--webhook-peers", `127.0.0.2:${port}`],
    });
    await using _both = new AsyncDisposableStack();
    _both.use(serving);
    _both.use(waiting);
    await world.until("the first poll has ended", () => polls(world) > 0);
    world.simulator.enqueue(world.environmentId);
    await world.untilServed(1);
    const { webhookDeliveries, hintedItems } = serving.operator.metrics;
    expect(await metricValue(hintedItems, { result: "hinted" })).toBe(1);
    expect(await metricValue(webhookDeliveries, { result: "hint" })).toBeGreaterThanOrEqual(1);
    expect(await metricValue(waiting.operator.metrics.hintedItems, {})).toBe(0);
    expect(await metricValue(waiting.operator.metrics.webhookPassedOn, { result: "failed" })).toBe(0);
    world.simulator.assertNoViolations();
  });

  test("cost one poll each if there is no work, and none if they are forged", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 1 } });
    await using hinted = await startHinted(world);
    const { webhookDeliveries } = hinted.operator.metrics;
    await world.createEnvironment();
    await world.untilParked(1);
    await world.until("the first poll has ended", () => polls(world) > 0);
    const before = polls(world);
    world.simulator.sendWebhook("session.status_idled", "sesn_other");
    world.simulator.sendWebhook("session.status_run_started", "sesn_nobody");
    await world.until("another poll is sent", () => polls(world) > before);
    await world.until("all deliveries are received", async () => (await metricValue(webhookDeliveries, {})) >= 4);
    expect(polls(world)).toBe(before + 1);
    expect(await metricValue(webhookDeliveries, { result: "hint" })).toBe(1);
    expect(await metricValue(webhookDeliveries, { result: "other-event" })).toBe(1);
  });
});
