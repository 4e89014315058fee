import { DEPLOYMENTS } from "../../../../src/kube/resource.ts";
import { SHORT_LEASE } from "../../../support/session-life.ts";
import { BUSY_PORT, deploymentsOf, workersOf, workersSpec } from "../../../support/workers-world.ts";
import type { World, WorldOptions } from "../../../support/world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";
import { type CrashCase, reads, writes } from "./cases.ts";
import type { Scenario } from "./scenarios.ts";

/** Workers that poll for an item, serve it for `workMs`, and poll for the next one. */
const pollers =
  (workMs = 3_000) =>
  (): WorldOptions => ({
    ...SHORT_LEASE,
    node: { fates: () => ({ kind: "poller", workMs, busyPort: BUSY_PORT }) },
  });

const spec =
  (workers: Record<string, unknown> = {}) =>
  (world: World) =>
    workersSpec(world, { workers });

const untilRunning = (world: World, count: number) =>
  world.until(
    `${count} workers run`,
    () => workersOf(world).filter(({ status }) => status?.phase === "Running").length >= count,
    PATIENCE_MS,
  );

async function replicas(world: World): Promise<number[]> {
  return (await deploymentsOf(world)).map(({ spec: { replicas: count = 1 } }) => count);
}

/** Waits for one Deployment with this number of replicas, and checks that scaling ended no session. */
const settledAt = (count: number) => async (world: World) => {
  await world.until(
    `one Deployment of ${count}`,
    async () => {
      const all = await replicas(world);
      return all.length === 1 && all[0] === count && workersOf(world).length === count;
    },
    PATIENCE_MS,
  );
  const ended = world.events("WorkerEndedWhileBusy").map(({ message }) => message);
  if (ended.length > 0) throw new Error(`busy workers were ended: ${ended.join("; ")}`);
};

/** Changes the Deployment's template, as another client might. */
async function changeTemplate(world: World): Promise<void> {
  await untilRunning(world, 1);
  const [deployment] = await deploymentsOf(world);
  const ref = { namespace: world.namespace, name: deployment?.metadata.name ?? "" };
  const patch = { spec: { template: { spec: { terminationGracePeriodSeconds: 7 } } } };
  await world.kube.patch(DEPLOYMENTS, ref, patch, { type: "merge" });
}

export const WORKERS_SCENARIOS = {
  /** From zero to the number of waiting items, and back to zero. */
  scaled: { world: pollers(), spec: spec(), items: [{}, {}], ends: "served", atEnd: settledAt(0) },
  /** From one worker to two. */
  grown: {
    world: pollers(),
    spec: spec({ minReplicas: 1 }),
    items: [],
    meanwhile: async (world) => {
      await untilRunning(world, 1);
      for (const item of [{}, {}]) world.simulator.enqueue(world.environmentId, item);
    },
    ends: "served",
    atEnd: settledAt(1),
  },
  /** The Environment is deleted with an idle worker. */
  deleted: {
    world: pollers(),
    spec: spec({ minReplicas: 1 }),
    items: [],
    meanwhile: async (world) => {
      await untilRunning(world, 1);
      await world.deleteEnvironment();
    },
    ends: "served",
  },
  /** Another client changes the Deployment. */
  changed: {
    world: pollers(),
    spec: spec({ minReplicas: 1 }),
    items: [],
    meanwhile: changeTemplate,
    ends: "served",
    atEnd: settledAt(1),
  },
  /** A worker that is not ready for a while and reports no reason. */
  slow: {
    world: () => ({
      ...SHORT_LEASE,
      node: { fates: () => ({ kind: "sandbox", times: 2, message: "no network yet" }) },
    }),
    spec: spec({ minReplicas: 1 }),
    items: [],
    ends: "served",
    atEnd: settledAt(1),
  },
  /** The egress rules allow the Pods more destinations. */
  reached: {
    world: pollers(),
    spec: spec({ minReplicas: 1 }),
    items: [],
    meanwhile: async (world) => {
      await untilRunning(world, 1);
      await world.patchSpec({ network: { egress: { cidrs: ["203.0.113.0/24"] } } });
    },
    ends: "served",
    atEnd: settledAt(1),
  },
  /** The network policy is removed. */
  "not-held": {
    world: pollers(),
    spec: spec({ minReplicas: 1 }),
    items: [],
    meanwhile: async (world) => {
      await untilRunning(world, 1);
      await world.patchSpec({ network: { policy: "None" } });
    },
    ends: "served",
    atEnd: settledAt(1),
  },
} as const satisfies Record<string, Scenario>;

export type WorkersScenarioName = keyof typeof WORKERS_SCENARIOS;

/** Every death in `workers` mode. */
export const WORKERS_CASES: readonly CrashCase<WorkersScenarioName>[] = [
  ...writes("scaled", ["environment.hold", "workers.create", "workers.mark", "workers.scale"]),
  ...reads("scaled", ["workers.count", "workers.list-pods"]),
  ...reads("slow", ["workers.read-events"]),
  ...reads("scaled", ["environment.read", "policy.read", "reconcile.read-key", "reconcile.check-template"]),
  ...writes("scaled", ["policy.create", "reconcile.write-status"]),
  ...writes("reached", ["policy.patch"]),
  ...writes("not-held", ["policy.delete"]),
  ...writes("grown", ["workers.scale"], { from: 1 }),
  ...writes("deleted", ["workers.remove", "environment.release"]),
  ...writes("changed", ["workers.put-right"]),
];
