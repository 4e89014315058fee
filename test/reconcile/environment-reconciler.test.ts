import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DEFAULT_RUNTIME_CLASSES } from "../../src/api/isolation.ts";
import { StreamBudgets } from "../../src/attach/pod-streams.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { KubeObject, Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { EnvironmentReconciler } from "../../src/reconcile/environment-reconciler.ts";
import { Budgets } from "../../src/work/budget.ts";
import type { WorkApiClient } from "../../src/work/client.ts";
import { sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube } from "./fake-kube.ts";

const KEY = "agents/research";
const ADDRESS = "https://proxy.example";

const none = { get: () => undefined, list: () => [], warm: () => [], sleeping: () => [], ofSession: () => [] };
let clock: VirtualClock;
let reconciler: EnvironmentReconciler;

beforeEach(() => {
  clock = new VirtualClock();
});

afterEach(() => reconciler.stop());

/** A new process that finds this Environment, and these Pods of it. The Work API sends no answer until the loops end. */
function start(find: () => KubeObject | undefined, pods: readonly Pod[] = []) {
  const kube = new FakeKube(({ verb, plural }) => {
    if (verb === "listAll") return { items: [] };
    if (verb === "get" && plural === "environments") return find();
    if (verb === "get") return { metadata: { uid: "s", resourceVersion: "1" }, data: { "environment-key": "a2V5" } };
    return {};
  }, clock);
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
    runtimeClasses: DEFAULT_RUNTIME_CLASSES,
    originAllowed: () => true,
    network: { apiCidrs: ["203.0.113.0/24"], operatorNamespace: "berth-system", dns: { pods: [], cidrs: [] } },
    workClient: () =>
      ({
        baseUrl: ADDRESS,
        poll: unanswered("poll"),
        stats: unanswered("stats"),
        list: unanswered("list"),
        idleIntervalMs: budgets.get(ADDRESS, "default").idleIntervalMs(),
      }) as unknown as WorkApiClient,
    find,
    pods: () => ({ ...none, list: () => pods, warm: () => pods }),
    nodeOutlook: () => "stays",
    workers: () => ({ pods: none, deployments: none, synced: Promise.resolve(), problem: () => null }),
    lag: () => null,
    ofQueue: () => ({ environments: [], unlisted: [] }),
    streamBudgets: new StreamBudgets(),
    again: (_key, afterMs) => again.push(afterMs),
  });
  const isClaimList = ({ verb, plural }: { verb: string; plural: string }) =>
    verb === "listAll" && plural === "secrets";
  return { kube, asked, again, told, hasListedClaims: () => kube.calls.some(isClaimList) };
}

describe("a drain that was given up", () => {
  /** A parked Pod that still exists. */
  const LEFTOVER = {
    metadata: { name: "berth-research-x", namespace: "agents", uid: "p", labels: { "berth.dev/phase": "warm" } },
    spec: { containers: [] },
  } as never;

  /**
   * An Environment deleted an hour ago. Another controller's finalizer keeps it, and a Pod on a lost node keeps it from
   * draining.
   */
  function lingering(): KubeObject {
    const raw = stored(sessionsSpec({}, { deletionGraceSeconds: 1 }));
    const metadata = raw["metadata"] as KubeObject["metadata"];
    const deletionTimestamp = new Date(clock.now() - 3_600_000).toISOString();
    return { ...raw, metadata: { ...metadata, deletionTimestamp, finalizers: ["somebody/else"] } };
  }

  /** Lets pending work finish, then reconciles as often as requested, up to `most` times. */
  async function follow(again: number[], most: number): Promise<number> {
    let reconciles = 0;
    for (; reconciles < most && again.length > 0; reconciles += 1) {
      again.splice(0);
      await reconciler.reconcile(KEY);
      await clock.advance(200);
    }
    return reconciles;
  }

  test("is announced once and never started again, however long others hold the Environment", async () => {
    const { told, again, kube } = start(lingering, [LEFTOVER]);
    again.push(0);
    expect(await follow(again, 20)).toBeLessThan(4);
    await reconciler.reconcile(KEY);
    await clock.advance(5_000);
    expect(told.filter((reason) => reason === "DrainGivenUp")).toHaveLength(1);
    const requests = kube.calls.length;
    await reconciler.reconcile(KEY);
    expect(kube.calls.length).toBe(requests);
  });

  test("does not keep a later Environment of the same name from being served", async () => {
    let raw: KubeObject | undefined = lingering();
    const { again } = start(() => raw, [LEFTOVER]);
    again.push(0);
    await follow(again, 20);
    raw = undefined;
    await reconciler.reconcile(KEY);
    raw = stored(sessionsSpec()) as unknown as KubeObject;
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(1);
  });
});

describe("an invalid spec", () => {
  /** Accepted before the network rules existed. */
  const MOVED = { api: { baseUrl: ADDRESS, keySecretRef: { name: "key" } } };

  const startWith = (spec: Parameters<typeof stored>[0]) => {
    const found = { raw: stored(spec) as unknown as KubeObject };
    return { ...start(() => found.raw), found };
  };

  test("that a newer version's network rules refuse keeps its running sessions alive, but creates and claims nothing", async () => {
    const { kube, asked, again, told, hasListedClaims } = startWith(sessionsSpec({ warm: 2 }, MOVED));
    await reconciler.reconcile(KEY);
    await clock.advance(5_000);
    expect(told).toContain("InvalidSpec");
    expect(hasListedClaims()).toBe(true);
    // Sessions with an operator lease need the key for heartbeats, so it is read now and again later.
    expect(kube.calls).toContainEqual(expect.objectContaining({ verb: "get", plural: "secrets" }));
    expect(again.filter((ms) => ms <= DEFAULT_TIMING.keyRefreshMs)).not.toEqual([]);
    expect(asked).not.toContain("poll");
    expect(kube.calls.filter(({ verb }) => verb === "create" || verb === "delete")).toEqual([]);
  });

  test("is served once it is fixed", async () => {
    const { found, kube } = startWith(sessionsSpec({ warm: 1 }, MOVED));
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(1);
    found.raw = stored(sessionsSpec({}, { ...MOVED, network: { policy: "None" } })) as unknown as KubeObject;
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(1);
    expect(kube.calls.filter(({ verb, plural }) => verb === "create" && plural === "pods")).not.toEqual([]);
  });

  test("in workers mode starts no loops, so its workers stay", async () => {
    startWith(workersSpec({}, MOVED));
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(0);
  });

  test("that was never accepted starts no loops", async () => {
    const { hasListedClaims } = startWith(sessionsSpec({ warm: 20, maxConcurrent: 10 }, MOVED));
    await reconciler.reconcile(KEY);
    expect(reconciler.size).toBe(0);
    expect(hasListedClaims()).toBe(false);
  });
});
