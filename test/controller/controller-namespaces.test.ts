import { afterEach, beforeEach, expect, test } from "vitest";
import { Controller } from "../../src/controller/controller.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { FakeApiServer, send } from "../kube/api-server.ts";
import { until } from "../kube/until.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
let controller: Controller;
let ending: AbortController;
let running: Promise<unknown>;
/** `namespace/name` of Environments whose status was written. */
let written: string[];
/** Parts of the paths that the server forbids to list. */
let forbidden: string[];

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access });
  written = [];
  forbidden = [];
  server.scripts.push((seen, response) => {
    const [, namespace, name] = /namespaces\/([a-z]+)\/environments\/([a-z]+)\/status$/.exec(seen.path) ?? [];
    if (name !== undefined) {
      written.push(`${namespace}/${name}`);
      send(response, 200, { metadata: { name } });
      return true;
    }
    if (!forbidden.some((part) => seen.path.includes(part))) return false;
    send(response, 403, { kind: "Status", status: "Failure", reason: "Forbidden", code: 403, message: "forbidden" });
    return true;
  });
  for (const namespace of ["gone", "kept"]) {
    // With an invalid spec, a whole reconcile is one status write.
    const path = `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments/research`;
    server.put(path, { metadata: { name: "research", namespace, generation: 1 }, spec: {} });
  }
});

afterEach(async () => {
  ending.abort();
  await running;
  await client.close();
  await server[Symbol.asyncDispose]();
});

function start() {
  controller = new Controller({
    namespaces: ["gone", "kept"],
    kube: client,
    points: () => NO_POINTS,
    clock,
    random: Math.random,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics: createMetrics(),
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
  ending = new AbortController();
  const { signal } = ending;
  // Like runOperator, serve nothing before the caches are filled.
  const ended = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  const serving = Promise.race([controller.synced, ended]).then(() => controller.serve(0, { signal, guard: () => {} }));
  running = Promise.all([controller.run(signal), serving]);
}

test("serves other namespaces while one can't be listed (deleted together with its Role)", async () => {
  forbidden = ["namespaces/gone/"];
  start();
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
  start();
  for (let i = 0; i < 60; i += 1) await clock.advance(1_000);
  expect(controller.hasSynced).toBe(false);
  expect(written).toEqual([]);
  forbidden = ["namespaces/gone/"];
  await until(clock, () => written.includes("kept/research"));
});
