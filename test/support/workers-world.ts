/** Worlds and specs with always-on workers. */
import { fileURLToPath } from "node:url";
import type { WorkersStatus } from "../../src/api/environment.ts";
import { LABEL_ROLE, LABEL_TEMPLATE_HASH } from "../../src/api/names.ts";
import { DEPLOYMENTS, type Deployment, type Pod } from "../../src/kube/resource.ts";
import type { Milliseconds } from "../../testbed/node/fate.ts";
import type { TestCluster } from "./cluster.ts";
import { SHORT_LEASE } from "./session-life.ts";
import { startWorld, type World, type WorldOptions } from "./world.ts";

const WORKER = fileURLToPath(new URL("../../examples/worker/always-on.mjs", import.meta.url));

/** The port of the busy probe; every Pod has its own address. */
export const BUSY_PORT = 9000;

/** No windows and no rates: the number of workers follows the demand at once. */
export const AT_ONCE = {
  scaleUp: { stabilizationWindowSeconds: 0, policies: [] },
  scaleDown: { stabilizationWindowSeconds: 0, policies: [] },
} as const;

export interface WorkersOptions {
  /** Fields that override a plain `spec.workers`. */
  readonly workers?: Record<string, unknown>;
  /** Environment variables of the worker, in addition to the plain ones. */
  readonly env?: Record<string, string>;
  /** How long a worker keeps an idle session, in milliseconds. */
  readonly maxIdleMs?: number;
  /** Fields of the Pod's spec. */
  readonly podSpec?: Record<string, unknown>;
  readonly probed?: boolean;
}

/** A world whose node runs containers as processes, for always-on workers with the unmodified SDK. */
export function workersWorld(cluster: TestCluster, options: WorldOptions = {}): Promise<World> {
  return startWorld(cluster, { ...SHORT_LEASE, node: { runtime: "process", fates: () => undefined }, ...options });
}

/**
 * A world whose containers are simulated always-on workers, each busy with an item for `workMs`. By default an item
 * never ends unless a client stops it.
 */
export function pollersWorld(
  cluster: TestCluster,
  options: WorldOptions & { readonly workMs?: Milliseconds } = {},
): Promise<World> {
  const { workMs = FOR_EVER_MS, ...rest } = options;
  const fates = () => ({ kind: "poller", workMs, busyPort: BUSY_PORT }) as const;
  return startWorld(cluster, { ...SHORT_LEASE, node: { fates }, ...rest });
}

/** Longer than any test. */
const FOR_EVER_MS = 3_600_000;

/** The spec of an Environment with workers, for `createEnvironment` or `patchSpec`. */
export function workersSpec(world: World, options: WorkersOptions = {}): Record<string, unknown> {
  return { sessions: undefined, workers: { ...workersPart(world, options) } };
}

/** A minimal template: a single worker that only has an image, on the world's own node. */
export function oneWorkerSpec(world: World, podSpec: Record<string, unknown> = {}): Record<string, unknown> {
  const template = {
    spec: {
      nodeSelector: world.nodeSelector,
      containers: [{ name: "worker", image: "worker:1" }],
      ...podSpec,
    },
  };
  return { sessions: undefined, workers: { minReplicas: 1, maxReplicas: 1, template } };
}

export function workersPart(world: World, options: WorkersOptions = {}): Record<string, unknown> {
  const { workers, probed = true } = options;
  return {
    maxReplicas: 4,
    behavior: AT_ONCE,
    ...(probed ? { busyProbe: { httpGet: { path: "/busy", port: BUSY_PORT } } } : {}),
    template: { spec: podSpecOf(world, options) },
    ...workers,
  };
}

function podSpecOf(world: World, { env = {}, maxIdleMs = 300, podSpec = {}, probed = true }: WorkersOptions) {
  const variables = {
    BERTH_WORKER_MAX_IDLE_MS: String(maxIdleMs),
    ...(probed ? { BERTH_WORKER_BUSY_PORT: String(BUSY_PORT) } : {}),
    ...env,
  };
  return {
    nodeSelector: world.nodeSelector,
    terminationGracePeriodSeconds: 30,
    ...podSpec,
    containers: [
      {
        name: "worker",
        image: "worker:1",
        command: [process.execPath, WORKER],
        env: [
          ...Object.entries(variables).map(([name, value]) => ({ name, value })),
          { name: "BERTH_WORKER_BUSY_HOST", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
        ],
      },
    ],
  };
}

/** The Deployments in this world's namespace. */
export async function deploymentsOf(world: Pick<World, "kube" | "namespace">): Promise<Deployment[]> {
  return (await world.kube.listAll(DEPLOYMENTS, { namespace: world.namespace })).items;
}

/** Worker Pods that are not being deleted; with `hash`, only those of one template. */
export function workersOf(world: Pick<World, "pods">, hash?: string): Pod[] {
  return world.pods.filter(
    ({ metadata }) =>
      metadata.labels?.[LABEL_ROLE] === "worker" &&
      metadata.deletionTimestamp === undefined &&
      (hash === undefined || metadata.labels[LABEL_TEMPLATE_HASH] === hash),
  );
}

/** Waits until the status reports this about the workers. */
export function untilWorkers(
  world: Pick<World, "environment" | "until">,
  what: string,
  predicate: (workers: WorkersStatus) => boolean,
): Promise<WorkersStatus> {
  return world.until(what, () => {
    const workers = world.environment?.status?.workers;
    return workers && predicate(workers) && workers;
  });
}
