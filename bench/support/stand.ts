import { type Simulator, type SimulatorOptions, startSimulator } from "../../simulator/simulator.ts";
import { API_VERSION, KIND } from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { NAMESPACES, SECRETS } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { BudgetLimits } from "../../src/work/budget.ts";
import { type OperatorProcess, startOperatorMain } from "../../test/support/operator-process.ts";
import { type Cluster, startCluster, waitForServiceAccount } from "../../testbed/cluster/cluster.ts";
import { installBerth } from "../../testbed/cluster/install.ts";
import { showProgress } from "../../testbed/cluster/progress.ts";
import { NODE } from "../../testbed/cluster/users.ts";
import { type NodeOptions, type SimulatedNode, startNode } from "../../testbed/node/node.ts";

/** Where the operator may hold Leases, by the manifests that are installed. */
export const OPERATOR_NAMESPACE = "berth-system";

/** What the Dockerfile sets, and what it tells Node. */
const IMAGE_VARIABLES = { NODE_ENV: "production", UV_THREADPOOL_SIZE: "64" };
const IMAGE_FLAGS = ["--max-semi-space-size=8"];

/** Where an Environment of a bench stands, and what it works for. */
export interface Served {
  readonly namespace: string;
  /** Of the Environment and, with `-key` behind it, of its Secret. */
  readonly name: string;
  readonly simulator: Simulator;
  readonly environmentId: string;
}

/** A control plane of its own, which a scenario measures on: whatever it starts here ends with it. */
export class Stand implements AsyncDisposable {
  readonly cluster: Cluster;
  /** Everything is allowed to it. */
  readonly kube: KubeClient;
  readonly #things: AsyncDisposableStack;

  private constructor(cluster: Cluster, kube: KubeClient, things: AsyncDisposableStack) {
    this.cluster = cluster;
    this.kube = kube;
    this.#things = things;
  }

  static async start(): Promise<Stand> {
    await using things = new AsyncDisposableStack();
    const progress = showProgress();
    const cluster = things.use(await startCluster({ progress }));
    await installBerth(cluster.api);
    progress.clear();
    const kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig), clock: realClock });
    things.defer(() => kube.close());
    return new Stand(cluster, kube, things.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#things.disposeAsync();
  }

  async namespace(name: string): Promise<string> {
    await this.kube.create(NAMESPACES, { metadata: { name } });
    await waitForServiceAccount(this.cluster.api, name);
    return name;
  }

  /** Deletes the Pods and Secrets of a namespace. */
  async empty(namespace: string): Promise<void> {
    for (const plural of ["pods", "secrets"]) {
      await this.kube.raw("DELETE", `/api/v1/namespaces/${namespace}/${plural}`);
    }
  }

  async simulator(options: SimulatorOptions = {}): Promise<Simulator> {
    return this.#things.use(await startSimulator(options));
  }

  async node(options: Partial<NodeOptions> = {}): Promise<SimulatedNode> {
    const client = await this.cluster.kubeconfigFor(NODE);
    return this.#things.use(await startNode({ client, name: "bench-node", ...options }));
  }

  /** The key's Secret and the Environment. @param spec its fields over environmentId and api */
  async environment(served: Served, spec: Record<string, unknown>): Promise<void> {
    const { namespace, name, simulator, environmentId } = served;
    const key = simulator.environmentKey(environmentId);
    const metadata = { name: `${name}-key`, namespace };
    await this.kube.create(SECRETS, { metadata, stringData: { "environment-key": key } });
    await this.kube.create(ENVIRONMENTS, {
      apiVersion: API_VERSION,
      kind: KIND,
      metadata: { name, namespace },
      spec: specOf(served, spec),
    } as never);
  }

  /**
   * The operator as it is built, in a process of its own, with the rights that it is shipped with.
   * @param origins of the Work API
   * @param nodeFlags Node's own, such as --cpu-prof
   * @param timeScale how many times faster than life its own times pass
   * @param budget of requests to the Work API, where it is not the one that it is shipped with
   */
  async operator(
    origins: string,
    flags: readonly string[] = [],
    nodeFlags: readonly string[] = [],
    timeScale = 1,
    budget: Partial<BudgetLimits> = {},
  ): Promise<OperatorProcess> {
    const all = [
      ...["--kubeconfig", this.cluster.operatorKubeconfig, "--allowed-api-origins", origins],
      ...["--metrics-bind-address", "127.0.0.1:0", "--health-probe-bind-address", "127.0.0.1:0"],
      ...flags,
    ];
    const own = { OPERATOR_TIME_SCALE: String(timeScale), BENCH_BUDGET: JSON.stringify(budget) };
    const variables = { ...IMAGE_VARIABLES, ...own };
    const main = new URL("./operator-main.mjs", import.meta.url).pathname;
    return this.#things.use(await startOperatorMain([...IMAGE_FLAGS, ...nodeFlags, main, ...all], variables));
  }
}

export function specOf({ name, simulator, environmentId }: Served, spec: Record<string, unknown>) {
  const api = { baseUrl: simulator.url, keySecretRef: { name: `${name}-key` } };
  return { environmentId, api, ...spec };
}
