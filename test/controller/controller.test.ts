import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { queueOf } from "../../src/api/environment.ts";
import { DEFAULT_RUNTIME_CLASSES } from "../../src/api/isolation.ts";
import { Controller, type ControllerOptions, ownPodLists } from "../../src/controller/controller.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { shardOf } from "../../src/election/shard-plan.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { readiness } from "../../src/operator.ts";
import { type Cache, createCache } from "../../src/watch/cache.ts";
import { FakeApiServer, send } from "../kube/api-server.ts";
import { until } from "../kube/until.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
let metrics: Metrics;
let ending: AbortController;
let running: Promise<unknown>;
/** `namespace/name` of Environments whose status was written, in order. */
let written: string[];
/** Parts of the paths that the server forbids to list. */
let forbidden: string[];

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access });
  metrics = createMetrics();
  ending = new AbortController();
  written = [];
  forbidden = [];
  server.scripts.push((seen, response) => {
    const [, namespace, name] = /namespaces\/([a-z]+)\/environments\/([a-z-]+)\/status$/.exec(seen.path) ?? [];
    if (name !== undefined) {
      written.push(`${namespace}/${name}`);
      send(response, 200, { metadata: { name } });
      return true;
    }
    if (!forbidden.some((part) => seen.path.includes(part))) return false;
    send(response, 403, { kind: "Status", status: "Failure", reason: "Forbidden", code: 403, message: "forbidden" });
    return true;
  });
});

afterEach(async () => {
  ending.abort();
  await running;
  await client.close();
  await server[Symbol.asyncDispose]();
});

/** Stores an Environment with an invalid spec: its whole reconcile is one status write. */
function put(key: string, { generation = 1, spec = {}, hidden = false } = {}): void {
  const [namespace = "", name = ""] = key.split("/");
  const path = `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments/${name}`;
  server.put(path, { metadata: { name, namespace, generation }, spec }, { hidden });
}

function controllerOf(options: Pick<ControllerOptions, "namespaces" | "shards">): Controller {
  return new Controller({
    ...options,
    kube: client,
    points: () => NO_POINTS,
    clock,
    random: Math.random,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics,
    podPolicy: {},
    runtimeClasses: DEFAULT_RUNTIME_CLASSES,
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
}

describe("namespaces", () => {
  beforeEach(() => {
    for (const namespace of ["gone", "kept"]) put(`${namespace}/research`);
  });

  function start(): Controller {
    const controller = controllerOf({ namespaces: ["gone", "kept"] });
    const { signal } = ending;
    // Like runOperator, serve nothing before the caches are filled.
    const ended = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    const serving = Promise.race([controller.synced, ended]).then(() =>
      controller.serve(0, { signal, guard: () => {} }),
    );
    running = Promise.all([controller.run(signal), serving]);
    return controller;
  }

  test("serves other namespaces while one can't be listed (deleted together with its Role)", async () => {
    forbidden = ["namespaces/gone/"];
    const controller = start();
    await until(clock, () => written.includes("kept/research"));
    expect(controller.hasSynced).toBe(true);
    expect(written).not.toContain("gone/research");
  });

  test("serves a namespace once it can be listed", async () => {
    forbidden = ["namespaces/gone/"];
    start();
    await until(clock, () => written.includes("kept/research"));
    forbidden = [];
    await until(clock, () => written.includes("gone/research"));
  });

  test("does not serve Environments while the Pods of their namespace can't be listed", async () => {
    forbidden = ["namespaces/gone/pods"];
    start();
    await until(clock, () => written.includes("kept/research"));
    for (let i = 0; i < 30; i += 1) await clock.advance(1_000);
    expect(written).not.toContain("gone/research");
  });

  test("serves nothing, and reports nothing as served, while no namespace can be listed", async () => {
    forbidden = ["namespaces/gone/", "namespaces/kept/"];
    const controller = start();
    for (let i = 0; i < 60; i += 1) await clock.advance(1_000);
    expect(controller.hasSynced).toBe(false);
    expect(written).toEqual([]);
    forbidden = ["namespaces/gone/"];
    await until(clock, () => written.includes("kept/research"));
  });
});

describe("shards", () => {
  const SHARDS = 2;
  const KEYS = ["a", "b", "c", "d", "e", "f", "g", "h"].map((name) => `agents/${name}`);
  const of = (shard: number) => KEYS.filter((key) => shardOf(key, SHARDS) === shard);
  let controller: Controller;

  beforeEach(async () => {
    for (const key of KEYS) put(key);
    controller = controllerOf({ namespaces: ["agents"], shards: SHARDS });
    running = controller.run(ending.signal);
    await until(clock, () => controller.hasSynced);
  });

  /** The Environments with metrics. */
  const shown = async () =>
    [...(await metrics.registry.metrics()).matchAll(/berth_environment_condition\{.*?environment="(.*?)"/g)]
      .map(([, name = ""]) => `agents/${name}`)
      .sort();

  const change = (key = "") => put(key, { generation: 2, spec: { paused: "no" } });

  test("tells that a shard it took can't be served, until its Pods can be listed", async () => {
    forbidden = ["/pods"];
    const serving = controller.serve(0, { signal: ending.signal, guard: () => {} });
    await until(clock, () => controller.stalled !== null);
    expect(controller.stalled).toMatch(/^cannot list Environments and Pods, so no Environment is served: .*forbidden/);
    expect(readiness(controller)["caches"]?.()).toMatchObject({ ok: false });
    expect(written).toEqual([]);
    forbidden = [];
    await until(clock, () => controller.stalled === null);
    expect(readiness(controller)["caches"]?.()).toMatchObject({ ok: true });
    await until(clock, () => of(0).every((key) => written.includes(key)));
    running = Promise.all([running, serving]);
  });

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
    change(of(0)[0]);
    change(of(1)[0]);
    await until(clock, () => written.length > of(1).length);
    expect([...new Set(written)].sort()).toEqual(of(1));
    expect(await shown()).toEqual(of(1));
    term.abort();
    await serving;
  });

  test("serves all Environments of one queue in the same shard", async () => {
    const spec = { environmentId: "env_shared" };
    const same = KEYS.map((key) => `${key}-shared`);
    for (const key of same) put(key, { spec });
    const shard = shardOf(queueOf(spec) ?? "", SHARDS);
    const term = new AbortController();
    const serving = controller.serve(shard, { signal: term.signal, guard: () => {} });
    await until(clock, () => same.every((key) => written.includes(key)));
    term.abort();
    await serving;
  });

  test("removes the metrics of a shard that ends, and keeps serving the other one", async () => {
    const terms = [new AbortController(), new AbortController()] as const;
    const serving = terms.map(({ signal }, shard) => controller.serve(shard, { signal, guard: () => {} }));
    await until(clock, () => new Set(written).size === KEYS.length);
    expect(await shown()).toEqual(KEYS);
    terms[0].abort();
    await serving[0];
    expect(controller.served).toEqual([1]);
    expect(await shown()).toEqual(of(1));
    const before = written.length;
    change(of(0)[0]);
    change(of(1)[0]);
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
    const late = ["late-a", "late-b", "late-c", "late-d"].map((name) => `agents/${name}`);
    const key = late.find((each) => shardOf(each, SHARDS) === 1) ?? "";
    // The watch lags: the Environment exists, but no event has reported it.
    put(key, { hidden: true });
    const term = new AbortController();
    const serving = controller.serve(1, { signal: term.signal, guard: () => {} });
    await until(clock, () => written.includes(key));
    term.abort();
    await serving;
  });
});

describe("the lists of an Environment's Pods", () => {
  const INDEX = "environment";
  const KEY = "agents/research";
  const UID = "ours";

  const putPod = (cache: Cache<Pod>, name: string, uid = UID) =>
    cache.set(name, {
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name,
        ownerReferences: [{ apiVersion: "v1", kind: "Environment", name: "e", uid, controller: true }],
      },
      spec: { containers: [] },
    });

  function setUp() {
    const [first, second] = [createCache<Pod>({ [INDEX]: () => [KEY] }), createCache<Pod>({ [INDEX]: () => [KEY] })];
    const list = ownPodLists([first, second], { index: INDEX, key: KEY, uid: UID });
    return { first, second, list, names: () => list().map(({ metadata }) => metadata.name) };
  }

  test("have the Pods of all caches, except those of another Environment of the same name", () => {
    const { first, second, names } = setUp();
    expect(names()).toEqual([]);
    putPod(first, "a");
    putPod(first, "theirs", "another");
    putPod(second, "b");
    expect(names()).toEqual(["a", "b"]);
  });

  test("are the same array until a Pod is added, changed or deleted in any cache", () => {
    const { first, second, list, names } = setUp();
    putPod(first, "a");
    putPod(second, "b");
    const before = list();
    expect(list()).toBe(before);
    putPod(second, "c");
    expect(names()).toEqual(["a", "b", "c"]);
    putPod(first, "a", "another");
    expect(names()).toEqual(["b", "c"]);
    second.delete("b");
    expect(names()).toEqual(["c"]);
    expect(before.map(({ metadata }) => metadata.name)).toEqual(["a", "b"]);
  });
});
