import fc from "fast-check";
import { expect, test } from "vitest";
import { useCluster } from "../../support/cluster.ts";
import { mutation, pathsOf, replaced } from "../../support/malformed-values.ts";
import { SHORT_LEASE } from "../../support/session-life.ts";
import { startWorld, type World } from "../../support/world.ts";
import { hostileActs } from "../../work/hostile-acts.ts";
import { json, StrictServer } from "../../work/strict-server.ts";
import { readFaultSettings } from "../support/settings.ts";
import { extentOf, Inputs, TIMES } from "./inputs.ts";
import { MutatingProxy, type Passing } from "./mutating-proxy.ts";
import { parsed, STRIKING_PATIENCE_MS, striking, untilUsed } from "./striking.ts";
import { WatchedOperator } from "./watched-operator.ts";
import { callOf, GOOD } from "./wire-samples.ts";

const cluster = useCluster();
const { seed } = readFaultSettings();

/** The number of inputs for each call. Frequent calls get more. */
const BROKEN: Readonly<Record<string, number>> = { poll: 33, stats: 33, heartbeat: 16, ack: 8, stop: 8, list: 6 };
const LIES: Readonly<Record<string, number>> = { poll: 24, stats: 24, heartbeat: 20, ack: 12, stop: 10, list: 6 };

/** Items that wait or run while answers are hostile. */
const ITEMS = 4;
/**
 * The shared budget starts at 20 requests a second and grows by at most one a second. The protocol's own calls are not
 * part of it.
 */
const MOST_IN_A_SECOND = 300;

const KEPT_BUSY = { seed, items: ITEMS };
const byUrl = ({ url }: Passing) => callOf(url);
/** The operator lists only after faults, so once all other inputs are used, no more lists may come. */
const isRare = (call: string) => call === "list";

/** A world whose operator sends the heartbeats, so that it makes every call itself, through a proxy. */
async function hostileWorld(): Promise<{ world: World; proxy: MutatingProxy; secrets: Set<string> }> {
  const world = await startWorld(cluster, {
    ...SHORT_LEASE,
    node: { fates: () => ({ kind: "exit", afterMs: 2_000 }) },
    sessions: { lease: "Operator", warm: 2, maxConcurrent: 6 },
  });
  const proxy = await MutatingProxy.start(world.simulator.url);
  const secrets = new Set([world.simulator.environmentKey(world.environmentId)]);
  proxy.onPassed = ({ url }, { status, body }) => {
    if (callOf(url) !== "poll" || status !== 200) return;
    const { secret } = (JSON.parse(body.toString()) ?? {}) as { secret?: string };
    if (secret) secrets.add(secret).add(JSON.parse(Buffer.from(secret, "base64url").toString()).sessions_token);
  };
  await world.createEnvironment({
    api: { baseUrl: proxy.url, keySecretRef: { name: "key" } },
  });
  return { world, proxy, secrets };
}

const isReachable = (world: World) => world.condition("QueueReachable")?.reason === "Reachable";

const operatorOf = (world: World, proxy: MutatingProxy) =>
  WatchedOperator.start([...world.flags(), "--allowed-api-origins", proxy.url], SHORT_LEASE.timeScale, 1_000);

test("broken answers to any call, before or after its effect, cause only delays", async () => {
  await using elsewhere = await StrictServer.start();
  const { world, proxy, secrets } = await hostileWorld();
  await using _world = world;
  await using _proxy = proxy;
  const names = Object.keys(hostileActs({}, elsewhere.origin));
  const all = Object.entries(BROKEN).flatMap(([call, count], i) => {
    const shuffled = fc.sample(fc.shuffledSubarray(names, { minLength: names.length }), {
      seed: seed + i,
      numRuns: TIMES,
    });
    return shuffled.flatMap((some) => some.slice(0, extentOf(count)).map((name) => [call, name, name] as const));
  });
  const inputs = new Inputs(all);
  let turn = 0;
  /** Items with an answer that never arrived, although the simulator assumes that it did. */
  const unanswered = new Set<string>();
  const strike = (name: string, { url }: Passing) => {
    turn += 1;
    unanswered.add(url.split("?")[0]?.split("/").at(-2) ?? "");
    const act = (body: unknown) => hostileActs(body, elsewhere.origin)[name] ?? json(500, {});
    return { forward: turn % 2 === 0, answer: (good: Parameters<typeof parsed>[0]) => act(parsed(good)) };
  };
  proxy.strike = striking(inputs, byUrl, strike, isRare);
  await using operator = await operatorOf(world, proxy);
  await untilUsed(world, operator, inputs, KEPT_BUSY);
  await world.until("the queue is reachable again", () => isReachable(world), STRIKING_PATIENCE_MS);
  await world.untilServed(1, STRIKING_PATIENCE_MS);
  const unexcused = world.simulator.violations.filter(
    ({ kind, workId }) => kind !== "beat-after-stop" || !unanswered.has(workId ?? ""),
  );
  expect(unexcused).toEqual([]);
  await operator.assertWell();
  operator.assertNeverLogged(secrets);
  expect(elsewhere.connections).toBe(0);
  expect(proxy.busiestSecond).toBeLessThan(MOST_IN_A_SECOND);
  console.log(inputs.summary(`broken answers of the Work API; at most ${proxy.busiestSecond} requests a second`));
});

test("answers with one false field do no harm beyond what that field is about", async () => {
  const { world, proxy, secrets } = await hostileWorld();
  await using _world = world;
  await using _proxy = proxy;
  const all = Object.entries(GOOD).flatMap(([call, good], i) =>
    fc
      .sample(mutation(pathsOf(good)), { seed: seed + i, numRuns: extentOf(LIES[call] ?? 1) * TIMES })
      .map((lie) => [call, `${lie.path.join(".")} = ${JSON.stringify(lie.by)?.slice(0, 80)}`, lie] as const),
  );
  const inputs = new Inputs(all);
  proxy.strike = striking(inputs, byUrl, ({ path, by }, { url }) => ({
    forward: true,
    answer: (good) =>
      json(200, replaced(good?.status === 200 && good.body.length > 0 ? parsed(good) : GOOD[callOf(url)], path, by)),
  }));
  await using operator = await operatorOf(world, proxy);
  await untilUsed(world, operator, inputs, KEPT_BUSY);
  // Whatever was false about previous items, new items are served.
  const fresh = Array.from({ length: ITEMS }, () => world.simulator.enqueue(world.environmentId));
  const areServed = () => {
    operator.assertAlive();
    return fresh.every(({ id }) => world.simulator.item(id).state === "stopped");
  };
  await world.until("new items are served", areServed, STRIKING_PATIENCE_MS);
  await world.until("the queue is reachable", () => isReachable(world), STRIKING_PATIENCE_MS);
  await operator.assertWell();
  operator.assertNeverLogged(secrets);
  expect(proxy.busiestSecond).toBeLessThan(MOST_IN_A_SECOND);
  console.log(inputs.summary(`lying answers of the Work API; at most ${proxy.busiestSecond} requests a second`));
});
