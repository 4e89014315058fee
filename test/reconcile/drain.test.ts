import { afterEach, expect, test } from "vitest";
import { DEFAULT_RUNTIME_CLASSES } from "../../src/api/isolation.ts";
import { StreamBudgets } from "../../src/attach/pod-streams.ts";
import { ShardTerm } from "../../src/controller/shard-term.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { KubeObject } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { deleteOrphanedClaims } from "../../src/reconcile/drain.ts";
import type { WorkApiClient } from "../../src/work/client.ts";
import { type Json, sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { claimSecret } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, notFound, refusal } from "./fake-kube.ts";

const KEY = "agents/research";
const SECOND_MS = 1_000;
const GRACE_SECONDS = 600;

const none = { get: () => undefined, list: () => [], warm: () => [], sleeping: () => [], ofSession: () => [] };
const terms: ShardTerm[] = [];

afterEach(async () => {
  for (const term of terms.splice(0)) await term.stop();
});

/**
 * An Environment that was just deleted, with a leftover that does not end: a Pod on a lost node, or a Deployment with
 * busy workers.
 */
function deletedEnvironment(clock: VirtualClock, raw: Json): KubeObject {
  const metadata = raw["metadata"] as KubeObject["metadata"];
  const deletionTimestamp = new Date(clock.now()).toISOString();
  return { ...raw, metadata: { ...metadata, deletionTimestamp, finalizers: ["berth.dev/drain"] } };
}

function leftPod(): KubeObject {
  return {
    metadata: { name: "berth-research-x", namespace: "agents", uid: "p", labels: { "berth.dev/phase": "warm" } },
    spec: { containers: [] },
  } as never;
}

function busyDeployment(uid: string): KubeObject {
  return {
    metadata: {
      name: "berth-research-1",
      namespace: "agents",
      uid: "d",
      generation: 1,
      ownerReferences: [
        { apiVersion: "berth.dev/v1alpha1", kind: "Environment", name: "research", uid, controller: true },
      ],
    },
    spec: { replicas: 1, selector: {}, template: { spec: { containers: [] } } },
  } as never;
}

/**
 * A new term of one replica. Its announcements and deletions are recorded with the seconds since the Environment's
 * deletion.
 */
function startTerm(clock: VirtualClock, environment: KubeObject, told: string[]) {
  const sinceSeconds = () =>
    Math.round((clock.now() - Date.parse(environment.metadata.deletionTimestamp ?? "")) / SECOND_MS);
  const isWorkers = "workers" in (environment["spec"] as Json);
  const deployments = isWorkers ? [busyDeployment(environment.metadata.uid ?? "")] : [];
  const kube = new FakeKube(({ verb, plural, ref }) => {
    if (verb === "delete") {
      told.push(`${sinceSeconds()} s: ${plural} ${ref.name} deleted`);
      return {};
    }
    if (verb === "listAll") return { items: [] };
    if (verb === "get" && plural === "environments") return environment;
    if (verb === "get") return { metadata: { uid: "s", resourceVersion: "1" }, data: { "environment-key": "a2V5" } };
    return {};
  }, clock);
  const again: number[] = [];
  const term = new ShardTerm({
    kube: kube.client,
    points: () => NO_POINTS,
    clock,
    random: () => 0.5,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics: createMetrics(),
    events: { event: (_about, _type, reason) => told.push(`${sinceSeconds()} s: ${reason}`) },
    guard: () => {},
    servingSinceMs: 0,
    podPolicy: {},
    runtimeClasses: DEFAULT_RUNTIME_CLASSES,
    originAllowed: () => true,
    network: { apiCidrs: ["203.0.113.0/24"], operatorNamespace: "berth-system", dns: { pods: [], cidrs: [] } },
    workClient: () => ({ stats: unanswered, list: unanswered, idleIntervalMs: 1_000 }) as unknown as WorkApiClient,
    find: () => environment,
    pods: () => {
      const left = () => (isWorkers ? [] : [leftPod() as never]);
      return { get: () => undefined, list: left, warm: left, sleeping: () => [], ofSession: () => [] };
    },
    nodeOutlook: () => "stays",
    workers: () => ({
      pods: none,
      deployments: { get: () => undefined, list: () => deployments as never },
      synced: Promise.resolve(),
      problem: () => null,
    }),
    lag: () => null,
    ofQueue: () => ({ environments: [], unlisted: [] }),
    streamBudgets: new StreamBudgets(),
    again: (_key, afterMs) => again.push(clock.monotonic() + afterMs),
  });
  terms.push(term);
  return {
    term,
    /** Reconciles whenever requested. */
    run: async (seconds: number) => {
      const endMs = clock.monotonic() + seconds * SECOND_MS;
      await term.reconcile(KEY);
      while (clock.monotonic() < endMs) {
        await clock.advance(SECOND_MS);
        if (again.some((atMs) => atMs <= clock.monotonic())) {
          again.splice(0);
          await term.reconcile(KEY);
        }
      }
    },
  };
}

/** The Work API does not answer. */
async function unanswered(): Promise<never> {
  throw new Error("no answer");
}

test.each<[string, Json, RegExp, number]>([
  [
    "sessions: it is given up",
    sessionsSpec({}, { deletionGraceSeconds: GRACE_SECONDS }),
    /DrainGivenUp$/,
    GRACE_SECONDS + DEFAULT_TIMING.drainBoundMs / SECOND_MS,
  ],
  [
    "workers: the busy ones end",
    workersSpec({}, { deletionGraceSeconds: GRACE_SECONDS }),
    /deployments .* deleted$/,
    GRACE_SECONDS,
  ],
])(
  "counts the drain from the deletion, not from the start of the shard's next holder; %s",
  async (_what, spec, words, endsAt) => {
    const timesOf = async (moves: readonly number[]) => {
      const clock = new VirtualClock();
      const environment = deletedEnvironment(clock, stored(spec));
      const told: string[] = [];
      for (const seconds of moves) {
        const { term, run } = startTerm(clock, environment, told);
        await run(seconds);
        await term.stop();
        // Until another replica acquires the Lease.
        await clock.advance(20 * SECOND_MS);
      }
      return told.filter((each) => words.test(each)).map((each) => Number.parseInt(each, 10));
    };
    const [unmoved = 0] = await timesOf([900]);
    expect(unmoved).toBe(endsAt);
    const [moved = 0] = await timesOf([200, 300, 500]);
    expect(Math.abs(moved - unmoved), `at ${moved} s, unmoved at ${unmoved} s`).toBeLessThanOrEqual(1);
  },
);

/** The claims that are deleted if the read of the Environment gets this answer. */
async function deletedClaims(environment: unknown): Promise<string[]> {
  const items = [claimSecret({}, { name: "own" }), claimSecret({ environmentUid: "another" }, { name: "another" })];
  const kube = new FakeKube(({ verb }) => (verb === "get" ? environment : verb === "listAll" ? { items } : {}));
  const metadata = { namespace: "agents", name: "research" };
  await deleteOrphanedClaims(
    { uid: "env-uid", environment: { metadata } as never, points: NO_POINTS },
    {
      ...{ kube: kube.client, logger: silentLogger },
    },
  );
  return kube.calls.filter(({ verb }) => verb === "delete").map(({ ref }) => ref.name);
}

test("deletes the claims of a deleted Environment, and no others", async () => {
  expect(await deletedClaims(notFound("environments", "research"))).toEqual(["own"]);
});

test.each([
  ["is there", { metadata: { name: "research", uid: "env-uid" } }],
  ["can't be read", refusal(500, "InternalError", "failed")],
])("keeps the claims of an Environment that %s", async (_, environment) => {
  expect(await deletedClaims(environment)).toEqual([]);
});
