import { afterEach, expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { KubeObject } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { SharedSessions } from "../../src/protocol/shared-sessions.ts";
import { EnvironmentReconciler } from "../../src/reconcile/environment-reconciler.ts";
import { Budgets } from "../../src/work/budget.ts";
import type { WorkApiClient } from "../../src/work/client.ts";
import { sessionsSpec, stored } from "../api/environments.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube } from "./fake-kube.ts";

const KEY = "agents/research";

const none = { get: () => undefined, list: () => [], parked: () => [], assignedTo: () => [] };
const clock = new VirtualClock();
let reconciler: EnvironmentReconciler;

/**
 * An Environment deleted an hour ago. Another controller's finalizer keeps it, and a Pod on a lost node keeps it from
 * draining.
 */
function lingering(finalizers: string[], uid?: string): KubeObject {
  const raw = stored(sessionsSpec({}, { deletionGraceSeconds: 1 }));
  const metadata = raw["metadata"] as KubeObject["metadata"];
  const deletionTimestamp = new Date(clock.now() - 3_600_000).toISOString();
  return { ...raw, metadata: { ...metadata, ...(uid ? { uid } : {}), deletionTimestamp, finalizers } };
}

function start(find: () => KubeObject | undefined) {
  const kube = new FakeKube(({ verb, plural }) => {
    if (verb === "listAll") return { items: [] };
    if (verb === "get" && plural === "environments") return find();
    if (verb === "get") return { metadata: { uid: "s", resourceVersion: "1" }, data: { "environment-key": "a2V5" } };
    return {};
  }, clock);
  const told: string[] = [];
  const again: number[] = [];
  const budgets = new Budgets({ clock, metrics: createMetrics() });
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
        stats: unanswered,
        list: unanswered,
        idleIntervalMs: budgets.get("https://api.example", "default").idleIntervalMs(),
      }) as unknown as WorkApiClient,
    find,
    pods: () => ({ get: () => undefined, list: () => [leftover()], parked: () => [leftover()], assignedTo: () => [] }),
    nodeOutlook: () => "stays",
    workers: () => ({ pods: none, deployments: none, synced: Promise.resolve(), problem: () => null }),
    lag: () => null,
    sharers: () => [],
    sharedSessions: new SharedSessions({ clock, served: () => [] }),
    again: (_key, afterMs) => again.push(afterMs),
  });
  return { kube, told, again };
}

/** Sends no answer until the loops end. */
async function unanswered({ signal }: { signal: AbortSignal }): Promise<never> {
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  throw new Error("aborted");
}

/** A parked Pod that still exists. */
function leftover() {
  return {
    metadata: { name: "berth-research-x", namespace: "agents", uid: "p", labels: { "berth.dev/phase": "parked" } },
    spec: { containers: [] },
  } as never;
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

afterEach(() => reconciler.stop());

test("announces a given-up drain once and never starts it again, however long others hold the Environment", async () => {
  const { told, again, kube } = start(() => lingering(["somebody/else"]));
  again.push(0);
  expect(await follow(again, 20)).toBeLessThan(4);
  await reconciler.reconcile(KEY);
  await clock.advance(5_000);
  expect(told.filter((reason) => reason === "DrainGivenUp")).toHaveLength(1);
  const asked = kube.calls.length;
  await reconciler.reconcile(KEY);
  expect(kube.calls.length).toBe(asked);
});

test("serves a later Environment of the same name", async () => {
  let raw: KubeObject | undefined = lingering(["somebody/else"]);
  const { again } = start(() => raw);
  again.push(0);
  await follow(again, 20);
  raw = undefined;
  await reconciler.reconcile(KEY);
  raw = stored(sessionsSpec()) as unknown as KubeObject;
  await reconciler.reconcile(KEY);
  expect(reconciler.size).toBe(1);
});
