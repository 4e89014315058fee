import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { seededRandom } from "../../simulator/ids.ts";
import type { TestCluster } from "../../test/support/cluster.ts";
import type { OperatorProcess } from "../../test/support/operator-process.ts";
import { SHORT_LEASE } from "../../test/support/session-life.ts";
import { TcpProxy } from "../../test/support/tcp-proxy.ts";
import { startWorld, type World } from "../../test/support/world.ts";
import { type Cluster, startCluster, waitForServiceAccount } from "../../testbed/cluster/cluster.ts";
import { installBerth } from "../../testbed/cluster/install.ts";
import { showProgress } from "../../testbed/cluster/progress.ts";
import { NODE } from "../../testbed/cluster/users.ts";
import { Fates, Fleet } from "./fleet.ts";
import { INSPECTED, Inspector } from "./inspector.ts";

/** How many times faster than real time everything runs, except the claim window. The operator uses the same scale. */
export const TIME_SCALE = SHORT_LEASE.timeScale;

const { ttlSeconds } = SHORT_LEASE.simulator.limits;
/**
 * All leases are short. A new operator waits for an unchanged value, and must not send a heartbeat sooner than the killed
 * one would have.
 */
const LIMITS = { ttlSeconds, minTtlSeconds: ttlSeconds, maxTtlSeconds: ttlSeconds };

/** An acknowledged item without a heartbeat is queued again after this time. */
const STARTING_SECONDS = 10;
/** The number of stopped items to list, so that the simulator's own lists don't grow forever. */
const LIST_KEEPS = 500;

/**
 * Everything that a soak runs on: its own control plane, and the operator as a process behind its own network proxy.
 */
export interface SoakStage extends AsyncDisposable {
  readonly cluster: Cluster;
  readonly world: World;
  readonly fleet: Fleet;
  readonly network: TcpProxy;
  /** The operator that runs now. */
  readonly operator: OperatorProcess;
  readonly inspector: Inspector;
  /** Kills the operator, and starts another one. */
  killOperator(): Promise<void>;
  wasKilled(operator: OperatorProcess): boolean;
  readonly random: () => number;
}

export async function startStage(seed: number): Promise<SoakStage> {
  await using things = new AsyncDisposableStack();
  const progress = showProgress();
  const cluster = things.use(await startCluster({ progress }));
  await installBerth(cluster.api);
  progress.clear();
  const random = seededRandom(seed);
  const fates = new Fates(random);
  const world = things.use(
    await startWorld(await asTestCluster(cluster), {
      timeScale: TIME_SCALE,
      // No surplus Pods are left at rest.
      timing: { warmScaleDownMs: 3_000, requestTimeoutMs: 3_000 },
      simulator: {
        seed,
        limits: { ...LIMITS, startingTimeoutSeconds: STARTING_SECONDS },
        switches: { listKeepsStopped: LIST_KEEPS },
      },
      node: {
        seed,
        fates: fates.choose,
      },
      key: false,
    }),
  );
  const network = things.use(await TcpProxy.start(cluster.server));
  const flags = ["--kubeconfig", await kubeconfigThrough(cluster, network), "--log-level", "info"];
  const start = async () => {
    const { process: operator } = await world.startOperatorProcess({ flags, nodeFlags: INSPECTED });
    return { operator, inspector: await Inspector.connect(operator) };
  };
  let running = await start();
  things.defer(() => running.inspector[Symbol.dispose]());
  const killed = new Set<OperatorProcess>();
  const fleet = new Fleet(world, fates);
  const moved = things.move();
  return {
    ...{ cluster, world, fleet, network, random },
    get operator() {
      return running.operator;
    },
    get inspector() {
      return running.inspector;
    },
    killOperator: async () => {
      const { operator, inspector } = running;
      killed.add(operator);
      inspector[Symbol.dispose]();
      await operator.kill();
      running = await start();
    },
    wasKilled: (operator) => killed.has(operator),
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

/** Writes the operator's kubeconfig, with the network proxy instead of the server. */
async function kubeconfigThrough(cluster: Cluster, network: TcpProxy): Promise<string> {
  const path = join(cluster.dir, "soak.kubeconfig");
  const text = await readFile(cluster.operatorKubeconfig, "utf8");
  await writeFile(path, text.replaceAll(cluster.server, network.url(cluster.server)), { mode: 0o600 });
  return path;
}

/** Wraps a dedicated cluster in the interface of the cluster that tests share. */
async function asTestCluster(cluster: Cluster): Promise<TestCluster> {
  const { api } = cluster;
  return {
    ...{ api, audit: cluster.audit, auditLog: cluster.audit.file },
    kubeconfig: cluster.kubeconfig,
    operatorKubeconfig: cluster.operatorKubeconfig,
    nodeKubeconfig: await cluster.kubeconfigFor(NODE),
    server: cluster.server,
    caFile: cluster.caFile,
    adminToken: cluster.adminToken,
    clientCaDir: cluster.clientCaDir,
    kubeconfigFor: (user, groups) => cluster.kubeconfigFor(user, groups),
    async createNamespace(prefix) {
      const name = `${prefix}-${randomBytes(4).toString("hex")}`;
      await api.create("/api/v1/namespaces", { metadata: { name } });
      await waitForServiceAccount(api, name);
      return name;
    },
  };
}
