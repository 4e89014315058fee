import { afterEach, describe, expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { KubeObject } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { SharedSessions } from "../../src/protocol/shared-sessions.ts";
import { EnvironmentReconciler } from "../../src/reconcile/environment-reconciler.ts";
import { Budgets } from "../../src/work/budget.ts";
import type { WorkApiClient } from "../../src/work/client.ts";
import { type Json, sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube } from "./fake-kube.ts";

const KEY = "agents/research";
/** Accepted before the network rules existed. */
const MOVED = { api: { baseUrl: "https://proxy.example", keySecretRef: { name: "key" } } };

const none = { get: () => undefined, list: () => [], parked: () => [], assignedTo: () => [] };
let reconciler: EnvironmentReconciler;

afterEach(() => reconciler.stop());

/** A new process that finds this Environment. */
function start(spec: Json) {
  const raw = stored(spec) as unknown as KubeObject;
  const found = { raw };
  const clock = new VirtualClock();
  const kube = new FakeKube(({ verb, plural }) => {
    if (verb === "listAll") return { items: [] };
    if (verb === "get" && plural === "secrets") {
      return { metadata: { uid: "s", resourceVersion: "1" }, data: { "environment-key": "a2V5" } };
    }
    return verb === "get" ? found.raw : {};
  });
  const asked: string[] = [];
  const again: number[] = [];
  const told: string[] = [];
  const budgets = new Budgets({ clock, metrics: createMetrics() });
  const unanswered = (what: string) => async (options: { signal?: AbortSignal }) => {
    asked.push(what);
    await new Promise((resolve) => options.signal?.addEventListener("abort", resolve, { once: true }));
    throw new Error("aborted");
  };
  reconciler = new EnvironmentReconciler({
    kube: kube.client,
    points: () => NO_POINTS,
    clock,
    random: Math.random,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics: createMetrics(),
    events: { event: (_about, _type, reason) => told.push(reason) },
    guard: () => {},
    servingSinceMs: 0,
    podPolicy: {},
    originAllowed: () => true,
    network: { apiCidrs: ["203.0.113.0/24"], operatorNamespace: "berth-system", dns: { pods: [], cidrs: [] } },
    workClient: () =>
      ({
        baseUrl: "https://proxy.example",
        poll: unanswered("poll"),
        stats: unanswered("stats"),
        list: unanswered("list"),
        idleIntervalMs: budgets.get("https://proxy.example", "default").idleIntervalMs(),
      }) as unknown as WorkApiClient,
    find: () => found.raw,
    pods: () => none,
    nodeOutlook: () => "stays",
    workers: () => ({ pods: none, deployments: none, synced: Promise.resolve(), problem: () => null }),
    lag: () => null,
    sharers: () => [],
    sharedSessions: new SharedSessions({ clock, served: () => [] }),
    again: (_key, afterMs) => again.push(afterMs),
  });
  const isClaimSearch = ({ verb, plural }: { verb: string; plural: string }) =>
    verb === "listAll" && plural === "secrets";
  return { clock, kube, asked, again, told, found, claimsSought: () => kube.calls.some(isClaimSearch) };
}

describe("an Environment that the network rules of a newer version refuse", () => {
  test("keeps its running sessions alive, but creates and claims nothing", async () => {
    const { clock, kube, asked, again, told, claimsSought } = start(sessionsSpec({ warm: 2 }, MOVED));
    await reconciler.reconcile(KEY);
    await clock.advance(5_000);
    expect(told).toContain("InvalidSpec");
    expect(claimsSought()).toBe(true);
    // Sessions with an operator lease need the key for heartbeats, so it is read now and again later.
    expect(kube.calls).toContainEqual(expect.objectContaining({ verb: "get", plural: "secrets" }));
    expect(again.filter((ms) => ms <= DEFAULT_TIMING.keyRefreshMs)).not.toEqual([]);
    expect(asked).not.toContain("poll");
    expect(kube.calls.filter(({ verb }) => verb === "create" || verb === "delete")).toEqual([]);
  });

  test("is served once it is fixed", async () => {
    const { found, kube } = start(sessionsSpec({ warm: 1 }, MOVED));
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(1);
    found.raw = stored(sessionsSpec({}, { ...MOVED, network: { policy: "None" } })) as unknown as KubeObject;
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(1);
    expect(kube.calls.filter(({ verb, plural }) => verb === "create" && plural === "pods")).not.toEqual([]);
  });

  test("in workers mode, keeps its workers: no loop ends them", async () => {
    start(workersSpec({}, MOVED));
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(0);
  });
});

test("starts no loops for a spec that is invalid for another reason", async () => {
  const { claimsSought } = start(sessionsSpec({ warm: 20, maxConcurrent: 10 }, MOVED));
  await reconciler.reconcile(KEY);
  expect(reconciler.size).toBe(0);
  expect(claimsSought()).toBe(false);
});
