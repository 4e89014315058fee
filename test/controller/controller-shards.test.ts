import { afterEach, beforeEach, expect, test } from "vitest";
import { Controller } from "../../src/controller/controller.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { shardOf } from "../../src/election/shard-plan.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { FakeApiServer, send } from "../kube/api-server.ts";
import { until } from "../kube/until.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SHARDS = 2;
const NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"];

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
let metrics: Metrics;
let controller: Controller;
let watching: AbortController;
let running: Promise<void>;
/** Names of Environments whose status was written, in order. */
let written: string[];

const path = (name: string) => `/apis/berth.dev/v1alpha1/namespaces/agents/environments/${name}`;
const of = (shard: number) => NAMES.filter((name) => shardOf(`agents/${name}`, SHARDS) === shard);

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access });
  metrics = createMetrics();
  written = [];
  server.scripts.push((seen, response) => {
    const [, name] = /environments\/([a-z-]+)\/status$/.exec(seen.path) ?? [];
    if (name === undefined) return false;
    written.push(name);
    send(response, 200, { metadata: { name } });
    return true;
  });
  // With an invalid spec, a whole reconcile is one status write.
  for (const name of NAMES)
    server.put(path(name), { metadata: { name, namespace: "agents", generation: 1 }, spec: {} });
  controller = new Controller({
    namespaces: ["agents"],
    kube: client,
    points: () => NO_POINTS,
    clock,
    random: Math.random,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics,
    shards: SHARDS,
    podPolicy: {},
    originAllowed: () => true,
    network: { apiCidrs: ["203.0.113.0/24"], operatorNamespace: "berth-system", dns: { pods: [], cidrs: [] } },
    actors: (guard) => ({
      kube: client.fenced(guard),
      events: { event: () => {} },
      workClient: () => {
        throw new Error("no loops run here");
      },
    }),
  });
  watching = new AbortController();
  running = controller.run(watching.signal);
  await until(clock, () => controller.hasSynced);
});

afterEach(async () => {
  watching.abort();
  await running;
  await client.close();
  await server[Symbol.asyncDispose]();
});

const shown = async () =>
  [...(await metrics.registry.metrics()).matchAll(/berth_environment_condition\{.*?environment="(.*?)"/g)]
    .map(([, name = ""]) => name)
    .sort();

test("has Environments in both shards", () => {
  expect(of(0).length * of(1).length).toBeGreaterThan(0);
});

test("writes nothing without a shard, and with one writes exactly its Environments", async () => {
  for (let i = 0; i < 20; i += 1) await clock.advance(1_000);
  expect(written).toEqual([]);
  const term = new AbortController();
  const serving = controller.serve(1, { signal: term.signal, guard: () => {} });
  await until(clock, () => written.length >= of(1).length);
  expect(controller.served).toEqual([1]);
  // After a change in both shards, only the held shard's Environment is written.
  const [ours = "", theirs = ""] = [of(1)[0], of(0)[0]];
  for (const name of [theirs, ours]) {
    server.put(path(name), { metadata: { name, namespace: "agents", generation: 2 }, spec: { paused: "no" } });
  }
  await until(clock, () => written.length > of(1).length);
  expect([...new Set(written)].sort()).toEqual(of(1));
  expect(await shown()).toEqual(of(1));
  term.abort();
  await serving;
});

test("removes the metrics of a shard that ends, and keeps serving the other one", async () => {
  const terms = [new AbortController(), new AbortController()] as const;
  const serving = terms.map(({ signal }, shard) => controller.serve(shard, { signal, guard: () => {} }));
  await until(clock, () => new Set(written).size === NAMES.length);
  expect(await shown()).toEqual(NAMES);
  terms[0].abort();
  await serving[0];
  expect(controller.served).toEqual([1]);
  expect(await shown()).toEqual(of(1));
  const before = written.length;
  for (const name of [of(0)[0] ?? "", of(1)[0] ?? ""]) {
    server.put(path(name), { metadata: { name, namespace: "agents", generation: 2 }, spec: { paused: "no" } });
  }
  await until(clock, () => written.length > before);
  expect(written.slice(before)).toEqual([of(1)[0]]);
  terms[1].abort();
  await serving[1];
  expect(await shown()).toEqual([]);
});

test("blocks only the writes of the shard whose guard is closed", async () => {
  const term = new AbortController();
  const serving = [
    controller.serve(0, {
      signal: term.signal,
      guard: () => {
        throw new LeadershipLostError("not the leader");
      },
    }),
    controller.serve(1, { signal: term.signal, guard: () => {} }),
  ];
  await until(clock, () => written.length >= of(1).length);
  for (let i = 0; i < 20; i += 1) await clock.advance(500);
  expect([...new Set(written)].sort()).toEqual(of(1));
  term.abort();
  await Promise.all(serving);
});

test("starts a term with the last writes of the previous one, even if the watch lags", async () => {
  // The watch lags: the Environment exists, but no event has reported it.
  const name = ["late-a", "late-b", "late-c", "late-d"].find((late) => shardOf(`agents/${late}`, SHARDS) === 1) ?? "";
  server.put(path(name), { metadata: { name, namespace: "agents", generation: 1 }, spec: {} }, { hidden: true });
  const term = new AbortController();
  const serving = controller.serve(1, { signal: term.signal, guard: () => {} });
  await until(clock, () => written.includes(name));
  term.abort();
  await serving;
});
