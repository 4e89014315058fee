import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { useCluster } from "../../support/cluster.ts";
import { mutation, pathsOf, replaced } from "../../support/malformed-values.ts";
import { startWorld, TEST_TIME_SCALE, type World } from "../../support/world.ts";
import { hostileActs } from "../../work/hostile-acts.ts";
import { type Act, json, StrictServer } from "../../work/strict-server.ts";
import { readFaultSettings } from "../support/settings.ts";
import { extentOf, Inputs, TIMES } from "./inputs.ts";
import { LIST_ACTS, REFUSALS, WATCH_ACTS } from "./kube-acts.ts";
import { MutatingProxy, type Passing } from "./mutating-proxy.ts";
import { parsed, STRIKING_PATIENCE_MS, striking, untilUsed } from "./striking.ts";
import { WatchedOperator } from "./watched-operator.ts";

const cluster = useCluster();
const { seed } = readFaultSettings();
const LIES = extentOf(10) * TIMES;
const ITEMS = 4;
const MOST_IN_A_SECOND = 400;

/** Calls that recur while sessions are served, with the number of inputs for each. */
const BROKEN: Readonly<Record<string, number>> = {
  "get pods": 16,
  "get secrets": 4,
  "create pods": 10,
  "create secrets": 12,
  "patch pods": 10,
  "patch secrets": 8,
  "delete secrets": 8,
};
/** The operator reopens watches with growing pauses. Lists follow from broken watches. */
const WATCHES = 7;
const LISTS = 3;

/** The operator's kubeconfig with the proxy as its API server. It keeps the same token, and the proxy forwards it. */
async function kubeconfigBehind(proxy: MutatingProxy, world: World): Promise<string> {
  const config = parse(readFileSync(cluster.operatorKubeconfig, "utf8"));
  config.clusters[0].cluster = { server: proxy.url };
  const file = join(dirname(cluster.operatorKubeconfig), `${world.namespace}.kubeconfig`);
  await writeFile(file, stringify(config), { mode: 0o600 });
  return file;
}

async function operatorBehind(proxy: MutatingProxy, world: World): Promise<WatchedOperator> {
  const flags = world.flags();
  flags[flags.indexOf("--kubeconfig") + 1] = await kubeconfigBehind(proxy, world);
  return WatchedOperator.start(flags, TEST_TIME_SCALE);
}

const VERBS: Readonly<Record<string, string>> = { POST: "create", PUT: "update", PATCH: "patch", DELETE: "delete" };
const COLLECTION = /^\/apis?\/(?:v1|[^/]+\/[^/]+)\/(?:namespaces\/[^/]+\/)?([a-z]+)(\/[^?]+)?(?:\?(.*))?$/;

/** Such as `get pods`, `list secrets` or `watch environments`. */
function callOf({ method, url }: Passing): string {
  const [, plural = "", name, query = ""] = COLLECTION.exec(url) ?? [];
  const read = query.includes("watch=true") ? "watch" : name === undefined ? "list" : "get";
  return `${method === "GET" ? read : VERBS[method]} ${plural}`;
}

/**
 * Each watch is struck, not every second one: a watch that is not reopened for a while must not be the last one left.
 */
const isWatch = (call: string) => call.startsWith("watch");

const KEPT_BUSY = { seed, items: ITEMS };

test("broken answers of the API server, before or after a request's effect, cause only delays", async () => {
  await using elsewhere = await StrictServer.start();
  await using world = await startWorld(cluster, { sessions: { warm: 2, maxConcurrent: 6 } });
  await using proxy = await MutatingProxy.start(cluster.server, readFileSync(cluster.caFile, "utf8"));
  await world.createEnvironment();
  const everywhere = { ...hostileActs({}, elsewhere.origin), ...REFUSALS };
  // These end only at a request's time limit, half a minute each, which the test's time scale does not shorten.
  for (const slow of Object.keys(everywhere).filter((name) => /now and then|switch of protocols/.test(name)))
    delete everywhere[slow];
  let draws = seed;
  const inputsOf = (call: string, acts: Readonly<Record<string, Act>>, count: number) => {
    const all = Object.entries(acts);
    draws += 1;
    const shuffled = fc.sample(fc.shuffledSubarray(all, { minLength: all.length }), { seed: draws, numRuns: TIMES });
    return shuffled.flatMap((some) => some.slice(0, extentOf(count)).map(([name, act]) => [call, name, act] as const));
  };
  const inputs = new Inputs([
    ...Object.entries(BROKEN).flatMap(([call, count]) => inputsOf(call, everywhere, count)),
    ...["pods", "environments"].flatMap((plural) => [
      ...inputsOf(`list ${plural}`, LIST_ACTS, LISTS),
      ...inputsOf(`watch ${plural}`, WATCH_ACTS, WATCHES),
    ]),
  ]);
  let turn = 0;
  proxy.strike = striking(
    inputs,
    callOf,
    (act) => {
      turn += 1;
      return { forward: turn % 2 === 0, answer: () => act };
    },
    isWatch,
  );
  await using operator = await operatorBehind(proxy, world);
  await untilUsed(world, operator, inputs, KEPT_BUSY);
  await world.untilServed(1, STRIKING_PATIENCE_MS);
  const last = world.simulator.enqueue(world.environmentId);
  await world.until(
    "one more is served",
    () => world.simulator.item(last.id).state === "stopped",
    STRIKING_PATIENCE_MS,
  );
  await world.untilServed(1, STRIKING_PATIENCE_MS);
  world.simulator.assertNoViolations();
  const areWarm = () => world.pods.length === 2 && world.parked.length === 2;
  await world.until("no Pod is left but the warm ones", areWarm, STRIKING_PATIENCE_MS);
  await operator.assertWell();
  expect(elsewhere.connections).toBe(0);
  expect(proxy.busiestSecond).toBeLessThan(MOST_IN_A_SECOND);
  console.log(inputs.summary(`broken answers of the API server; at most ${proxy.busiestSecond} requests a second`));
});

/** Objects as the API server returns them. The test derives the paths to change from them. */
const SAMPLE_POD = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "n", namespace: "n", uid: "u", resourceVersion: "1", labels: { a: "b" }, annotations: { a: "b" } },
  spec: { nodeName: "n", containers: [{ name: "worker", image: "i" }], activeDeadlineSeconds: 5 },
  status: {
    phase: "Running",
    startTime: "2026-01-01T00:00:00Z",
    conditions: [{ type: "PodScheduled", status: "True", lastTransitionTime: "2026-01-01T00:00:00Z" }],
    containerStatuses: [{ name: "worker", state: { waiting: { reason: "r", message: "m" } }, restartCount: 0 }],
  },
};
const SAMPLE_SECRET = {
  metadata: SAMPLE_POD.metadata,
  type: "berth.dev/claim",
  data: { "work-id": "eA==", use: "eA==" },
};
const LIED_ABOUT: Readonly<Record<string, unknown>> = {
  "get pods": SAMPLE_POD,
  "create pods": SAMPLE_POD,
  "patch pods": SAMPLE_POD,
  "get secrets": SAMPLE_SECRET,
  "create secrets": SAMPLE_SECRET,
  "patch secrets": SAMPLE_SECRET,
};

test("objects with one false field do no harm beyond what that field is about", async () => {
  await using world = await startWorld(cluster, { sessions: { warm: 2, maxConcurrent: 6 } });
  await using proxy = await MutatingProxy.start(cluster.server, readFileSync(cluster.caFile, "utf8"));
  await world.createEnvironment();
  const all = Object.entries(LIED_ABOUT).flatMap(([call, sample], i) =>
    fc
      .sample(mutation(pathsOf(sample)), { seed: seed + i, numRuns: LIES })
      .map((lie) => [call, `${lie.path.join(".")} = ${JSON.stringify(lie.by)?.slice(0, 80)}`, lie] as const),
  );
  const inputs = new Inputs(all);
  proxy.strike = striking(
    inputs,
    callOf,
    ({ path, by }, passing) => ({
      forward: true,
      answer: (good) => {
        const shown = good && good.status < 300 ? parsed(good) : LIED_ABOUT[callOf(passing)];
        return json(good?.status ?? 200, at(shown, path.slice(0, -1)) ? replaced(shown, path, by) : shown);
      },
    }),
    isWatch,
  );
  await using operator = await operatorBehind(proxy, world);
  await untilUsed(world, operator, inputs, KEPT_BUSY);
  const fresh = Array.from({ length: ITEMS }, () => world.simulator.enqueue(world.environmentId));
  const areServed = () => {
    operator.assertAlive();
    return fresh.every(({ id }) => world.simulator.item(id).state === "stopped");
  };
  await world.until("new items are served", areServed, STRIKING_PATIENCE_MS);
  await operator.assertWell();
  expect(proxy.busiestSecond).toBeLessThan(MOST_IN_A_SECOND);
  console.log(inputs.summary(`lying objects of the API server; at most ${proxy.busiestSecond} requests a second`));
});

/** Whether there is an object or a list at this path. */
function at(value: unknown, path: readonly string[]): boolean {
  const found = path.reduce<unknown>((part, key) => (part as Record<string, unknown> | undefined)?.[key], value);
  return typeof found === "object" && found !== null;
}
