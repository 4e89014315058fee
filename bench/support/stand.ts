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

/** The namespace in which the installed manifests let the operator hold Leases. */
export const OPERATOR_NAMESPACE = "berth-system";

/** The environment variables and Node flags that the Dockerfile sets. */
const IMAGE_VARIABLES = { NODE_ENV: "production", UV_THREADPOOL_SIZE: "64" };
const IMAGE_FLAGS = ["--max-semi-space-size=8"];

/** The location of a bench's Environment, and the environment it serves. */
export interface Served {
  readonly namespace: string;
  /** The name of the Environment. Its Secret has the suffix `-key`. */
  readonly name: string;
  readonly simulator: Simulator;
  readonly environmentId: string;
}

/** What every control plane offers, also that of a real node. */
export type ControlPlane = Pick<Cluster, "api" | "audit" | "kubeconfig" | "operatorKubeconfig">;

/** A control plane for one scenario. Everything that the scenario starts here ends with it. */
export class Stand<C extends ControlPlane = Cluster> implements AsyncDisposable {
  readonly cluster: C;
  /** A client with all permissions. */
  readonly kube: KubeClient;
  readonly #things: AsyncDisposableStack;

  private constructor(cluster: C, kube: KubeClient, things: AsyncDisposableStack) {
    this.cluster = cluster;
    this.kube = kube;
    this.#things = things;
  }

  static async start(): Promise<Stand> {
    await using things = new AsyncDisposableStack();
    const progress = showProgress();
    const cluster = things.use(await startCluster({ progress }));
    const stand = await Stand.on(cluster, things.move());
    progress.clear();
    return stand;
  }

  /** Installs the operator's permissions on a control plane. @param started ends with the stand */
  static async on<C extends ControlPlane>(
    cluster: C,
    started: AsyncDisposableStack = new AsyncDisposableStack(),
  ): Promise<Stand<C>> {
    await using things = started;
    await installBerth(cluster.api);
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

  async node(this: Stand, options: Partial<NodeOptions> = {}): Promise<SimulatedNode> {
    const client = await this.cluster.kubeconfigFor(NODE);
    return this.#things.use(await startNode({ client, name: "bench-node", ...options }));
  }

  /** Creates the Secret with the key, and the Environment. @param spec fields in addition to environmentId and api */
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
   * Starts the built operator in its own process, with the permissions that it's shipped with.
   * @param origins of the Work API
   * @param nodeFlags flags for Node, such as --cpu-prof
   * @param timeScale how many times faster than real time its times run
   * @param budget of requests to the Work API, if it differs from the default
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
