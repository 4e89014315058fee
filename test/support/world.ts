/** A complete installation for integration tests: work simulator, node, Environment, operators, and waits. */
import { randomBytes } from "node:crypto";
import type { z } from "zod";
import { type Simulator, type SimulatorOptions, startSimulator } from "../../simulator/simulator.ts";
import { findCondition } from "../../src/api/conditions.ts";
import type { Environment } from "../../src/api/environment.ts";
import { API_VERSION, KIND, LABEL_ENVIRONMENT } from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import { Notifier } from "../../src/core/notifier.ts";
import { DEFAULT_TIMING, scaleTiming, type Timing } from "../../src/core/timing.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import {
  EVENTS,
  type KubeEvent,
  type KubeObject,
  PODS,
  type Pod,
  SECRETS,
  type Secret,
} from "../../src/kube/resource.ts";
import { createLogger, silentLogger } from "../../src/observe/logger.ts";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { runOperator, type Seams } from "../../src/operator.ts";
import { readPodState } from "../../src/pods/pod-state.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { parseSettings } from "../../src/settings/config.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import { type NodeOptions, type SimulatedNode, startNode } from "../../testbed/node/node.ts";
import type { TestCluster } from "./cluster.ts";
import { expectDocumentedLabels } from "./label-values.ts";
import { LateInformer } from "./late-informer.ts";
import { type OperatorProcess, type ProcessOptions, startOperatorProcess } from "./operator-process.ts";
import { shippedRules } from "./shipped-rights.ts";

/** The limit of every wait: far longer than any step takes, so that only what never happens fails. */
const PATIENCE_MS = 60_000;

/** How often a wait checks what nothing reports. */
const LOOK_AGAIN_MS = 250;

/**
 * The factor by which the operator's own pauses are shortened in tests; the claim window belongs to the server and
 * keeps its length.
 */
export const TEST_TIME_SCALE = 20;

export interface WorldOptions {
  readonly simulator?: SimulatorOptions;
  /** Another world whose work simulator and environmentId this one also uses: two clusters on one queue. */
  readonly beside?: World;
  readonly node?: Partial<NodeOptions>;
  /** Fields that override a plain `spec.sessions`. */
  readonly sessions?: Record<string, unknown>;
  readonly api?: Record<string, unknown>;
  readonly spec?: Record<string, unknown>;
  /** Fields that override a plain session container. */
  readonly container?: Record<string, unknown>;
  /** Fields of the Pod's spec. */
  readonly podSpec?: Record<string, unknown>;
  readonly timeScale?: number;
  /** Other times of operators, which the time scale does not change. */
  readonly timing?: Partial<Timing>;
  /** False: no Secret with the key is created. */
  readonly key?: boolean;
}

/** One running operator, in this process or in its own. */
export interface Operator {
  readonly metrics?: Metrics;
  readonly process?: OperatorProcess;
  stop(): Promise<void>;
}

/** An operator in this process, whose metrics can be read. */
export type InProcessOperator = Operator & { readonly metrics: Metrics };

/**
 * Everything that serves sessions, in its own namespace on the shared control plane: a simulated node, the work
 * simulator, one Environment's key and spec, operators on demand, and views of the API server's objects.
 */
export class World implements AsyncDisposable {
  readonly namespace: string;
  readonly kube: KubeClient;
  readonly simulator: Simulator;
  readonly node: SimulatedNode;
  readonly environmentId: string;
  readonly name = "served";
  readonly #cluster: TestCluster;
  readonly #options: WorldOptions;
  readonly #changed = new Notifier();
  readonly #watching = new AbortController();
  readonly #pods: LateInformer<Pod>;
  readonly #secrets: LateInformer<Secret>;
  readonly #environments: LateInformer<KubeObject>;
  readonly #events: LateInformer<KubeEvent>;
  readonly #operators = new Set<Operator>();

  constructor(parts: {
    cluster: TestCluster;
    namespace: string;
    kube: KubeClient;
    simulator: Simulator;
    node: SimulatedNode;
    environmentId: string;
    options: WorldOptions;
  }) {
    this.#cluster = parts.cluster;
    this.namespace = parts.namespace;
    this.kube = parts.kube;
    this.simulator = parts.simulator;
    this.node = parts.node;
    this.environmentId = parts.environmentId;
    this.#options = parts.options;
    const common = {
      client: parts.kube,
      namespace: parts.namespace,
      clock: realClock,
      logger: silentLogger,
      metrics: createMetrics(),
    };
    this.#pods = new LateInformer({ ...common, resource: PODS });
    this.#secrets = new LateInformer({ ...common, resource: SECRETS });
    this.#environments = new LateInformer<KubeObject>({ ...common, resource: ENVIRONMENTS });
    this.#events = new LateInformer({ ...common, resource: EVENTS });
    for (const informer of [this.#pods, this.#secrets, this.#environments, this.#events] as const) {
      informer.subscribe(() => this.#changed.notify());
      void informer.run(this.#watching.signal);
    }
    for (const event of ["item", "violation", "session", "fault", "waiting", "request"] as const) {
      this.simulator.on(event as never, () => this.#changed.notify());
    }
    this.node.subscribe(() => this.#changed.notify());
  }

  // --- state -------------------------------------------------------------------------------------------------------

  get pods(): Pod[] {
    return this.#pods.list();
  }

  /** Claim Secrets: those with Berth's label. */
  get claims(): Secret[] {
    return this.#secrets.list().filter(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT] !== undefined);
  }

  get environment(): Environment | undefined {
    return this.#environments.get(this.namespace, this.name) as Environment | undefined;
  }

  /** A Pod's node selector for this world's own node. */
  get nodeSelector(): { readonly "kubernetes.io/hostname": string } {
    return { "kubernetes.io/hostname": this.node.name };
  }

  /** Events in the namespace with this reason. */
  events(reason: string): KubeEvent[] {
    return this.#events.list().filter((event) => event.reason === reason);
  }

  /** All Events in the namespace. */
  get allEvents(): KubeEvent[] {
    return this.#events.list();
  }

  /** Calls `fn` after every change of a Pod, while the change is current. Returns a function that unsubscribes. */
  onPodChange(fn: () => void): () => void {
    return this.#pods.subscribe(fn);
  }

  /** Pods that the kubelet reports as parked. */
  get parked(): Pod[] {
    return this.pods.filter(
      (pod) =>
        !pod.metadata.deletionTimestamp &&
        pod.metadata.labels?.["berth.dev/phase"] === "warm" &&
        readPodState(pod).is === "parked",
    );
  }

  condition(type: Parameters<typeof findCondition>[1]) {
    return findCondition(this.environment?.status?.conditions, type);
  }

  // --- waiting ----------------------------------------------------------------------------------------------------

  /**
   * Waits until `predicate` holds. Checks after every change in this world, and periodically for changes without an
   * event, such as counters.
   */
  async until<T>(
    what: string,
    predicate: () => T | undefined | null | false | Promise<T | undefined | null | false>,
    patienceMs = PATIENCE_MS,
  ): Promise<T> {
    const bound = AbortSignal.timeout(patienceMs);
    for (;;) {
      const value = await predicate();
      if (value !== undefined && value !== null && value !== false) return value;
      if (bound.aborted) throw new Error(`not within ${patienceMs} ms: ${what}\n${this.describe()}`);
      await this.#changed.wait(AbortSignal.any([bound, AbortSignal.timeout(LOOK_AGAIN_MS)]));
    }
  }

  /** Resolves when the views of these kinds are at least as new as this call, for a test that checks once. */
  async caughtUp(...kinds: ("pods" | "secrets" | "environments" | "events")[]): Promise<void> {
    const views = { pods: this.#pods, secrets: this.#secrets, environments: this.#environments, events: this.#events };
    await Promise.all(kinds.map((kind) => views[kind].relist()));
  }

  untilParked(count: number): Promise<Pod[]> {
    return this.until(`${count} parked Pods`, () => this.parked.length >= count && this.parked);
  }

  untilCondition(type: Parameters<typeof findCondition>[1], reason: string) {
    return this.until(`${type} with reason ${reason}`, () => {
      const condition = this.condition(type);
      return condition?.reason === reason && condition;
    });
  }

  /** Waits until every item is stopped and no claims are left. */
  untilServed(count: number, patienceMs = PATIENCE_MS): Promise<true> {
    const isServed = () => {
      const items = this.simulator.items(this.environmentId);
      return items.length >= count && items.every(({ state }) => state === "stopped") && this.claims.length === 0;
    };
    return this.until(`${count} items served and settled`, isServed, patienceMs);
  }

  // --- acting -----------------------------------------------------------------------------------------------------

  /** The spec that `createEnvironment` sends. */
  spec(over: Record<string, unknown> = {}): Record<string, unknown> {
    const { sessions, api, spec, container, podSpec } = this.#options;
    return {
      environmentId: this.environmentId,
      deletionGraceSeconds: 5,
      api: { baseUrl: this.simulator.url, keySecretRef: { name: "key" }, ...api },
      sessions: {
        maxConcurrent: 10,
        warm: 1,
        retainEndedSeconds: 0,
        retainFailedSeconds: 0,
        template: {
          spec: {
            nodeSelector: this.nodeSelector,
            terminationGracePeriodSeconds: 2,
            ...podSpec,
            containers: [{ name: "worker", image: "worker:1", ...container }],
          },
        },
        ...sessions,
      },
      ...spec,
      ...over,
    };
  }

  async createEnvironment(over: Record<string, unknown> = {}): Promise<void> {
    const metadata = { name: this.name, namespace: this.namespace };
    await this.kube.create(ENVIRONMENTS, {
      apiVersion: API_VERSION,
      kind: KIND,
      metadata,
      spec: this.spec(over),
    } as never);
  }

  /** Merges into the spec. */
  async patchSpec(patch: Record<string, unknown>): Promise<void> {
    await this.kube.patch(
      ENVIRONMENTS,
      { namespace: this.namespace, name: this.name },
      { spec: patch },
      { type: "merge" },
    );
  }

  async deleteEnvironment(): Promise<void> {
    await this.kube.delete(ENVIRONMENTS, { namespace: this.namespace, name: this.name });
  }

  async createKey(key = this.simulator.environmentKey(this.environmentId), name = "key"): Promise<void> {
    const metadata = { name, namespace: this.namespace };
    await this.kube.create(SECRETS, { metadata, stringData: { "environment-key": key } });
  }

  /** Creates another queue and a Secret with its key. Returns what the spec of an Environment needs to serve it. */
  async createQueue(secret: string) {
    const { id: environmentId } = this.simulator.createEnvironment();
    await this.createKey(this.simulator.environmentKey(environmentId), secret);
    return { environmentId, api: { baseUrl: this.simulator.url, keySecretRef: { name: secret } } };
  }

  /** The flags of an operator that serves only this world. */
  flags(): string[] {
    return [
      ...["--kubeconfig", this.#cluster.operatorKubeconfig],
      ...["--namespace", this.namespace],
      ...["--leader-elect-namespace", this.namespace],
      ...["--allowed-api-origins", this.simulator.url],
      ...["--metrics-bind-address", "127.0.0.1:0", "--health-probe-bind-address", "0"],
      ...["--log-level", "debug"],
    ];
  }

  /** Starts an operator in this process. */
  startOperator(options: { leaderElect?: boolean; flags?: readonly string[]; seams?: Seams } = {}): InProcessOperator {
    const ending = new AbortController();
    const metrics = createMetrics();
    const elect = options.leaderElect === true ? [] : ["--leader-elect=false"];
    const settings = parseSettings([...this.flags(), ...elect, ...(options.flags ?? [])], {});
    const { timeScale = TEST_TIME_SCALE } = this.#options;
    const timing = { ...scaleTiming(DEFAULT_TIMING, timeScale), ...this.#options.timing };
    const level = process.env.BERTH_TEST_LOG as "debug" | undefined;
    const logger = level ? createLogger(level) : silentLogger;
    const running = runOperator(settings, ending.signal, { metrics, timing, logger, ...options.seams });
    const operator: InProcessOperator = {
      metrics,
      stop: async () => {
        ending.abort();
        this.#operators.delete(operator);
        await running;
        await expectDocumentedLabels(metrics.registry);
      },
    };
    this.#operators.add(operator);
    return operator;
  }

  /** Starts an operator in its own process, for tests that kill it. */
  async startOperatorProcess(
    options: { leaderElect?: boolean; flags?: readonly string[]; timeScale?: number } & ProcessOptions = {},
  ): Promise<Operator & { readonly process: OperatorProcess }> {
    const elect = options.leaderElect === true ? [] : ["--leader-elect=false"];
    const child = await startOperatorProcess(
      [...this.flags(), ...elect, ...(options.flags ?? [])],
      options.timeScale ?? this.#options.timeScale ?? TEST_TIME_SCALE,
      { timing: this.#options.timing, ...options },
    );
    const operator = {
      process: child,
      stop: async () => {
        this.#operators.delete(operator);
        await child.stop();
      },
    };
    this.#operators.add(operator);
    return operator;
  }

  /** The current state, for the message of a failed wait. */
  describe(): string {
    const items = this.simulator.items(this.environmentId);
    return JSON.stringify(
      {
        conditions: this.environment?.status?.conditions?.map(
          ({ type, status, reason, message }) => `${type}=${status} ${reason}: ${message}`,
        ),
        sessions: this.environment?.status?.sessions,
        pods: this.pods.map(({ metadata, status }) => [
          metadata.name,
          metadata.labels?.["berth.dev/phase"],
          status?.phase,
          JSON.stringify(status?.containerStatuses?.map(({ state }) => state)),
        ]),
        claims: this.claims.map(({ metadata }) => metadata.name),
        items: items.slice(0, 20).map(({ id, state }) => [id, state]),
        events: this.#events
          .list()
          .map(({ reason, message, involvedObject }) => [involvedObject.kind, reason, message]),
        violations: this.simulator.violations,
      },
      null,
      1,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#operators].map((operator) => operator.stop()));
    this.#watching.abort();
    await this.node.stop();
    if (!this.#options.beside) await this.simulator.close();
    await this.kube.close();
  }
}

/** Builds a world without an operator and without an Environment. */
export async function startWorld(cluster: TestCluster, options: WorldOptions = {}): Promise<World> {
  const namespace = await cluster.createNamespace("world");
  const kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig), clock: realClock });
  const simulator = options.beside?.simulator ?? (await startSimulator(options.simulator));
  const environmentId = options.beside?.environmentId ?? simulator.createEnvironment().id;
  const node = await startNode({
    client: cluster.kubeconfig,
    name: `node-${randomBytes(4).toString("hex")}`,
    fates: () => ({ kind: "worker", workMs: 300 }),
    ...options.node,
  });
  const world = new World({ cluster, namespace, kube, simulator, node, environmentId, options });
  await grantOperator(world);
  if (options.key !== false) await world.createKey();
  return world;
}

/**
 * Grants the operator the permissions of deploy/. Its Leases are in the test's own namespace, so it gets those
 * permissions there too.
 */
async function grantOperator(world: World): Promise<void> {
  const rbac = (kind: string, plural: string) => ({
    group: "rbac.authorization.k8s.io",
    version: "v1",
    plural,
    kind,
    namespaced: true,
  });
  const metadata = { name: "leases", namespace: world.namespace };
  const rules = await shippedRules("berth-operator-leader");
  await world.kube.create(rbac("Role", "roles"), { metadata, rules } as never);
  const subjects = [{ kind: "User", name: OPERATOR, apiGroup: "rbac.authorization.k8s.io" }];
  const roleRef = { kind: "Role", name: "leases", apiGroup: "rbac.authorization.k8s.io" };
  await world.kube.create(rbac("RoleBinding", "rolebindings"), { metadata, subjects, roleRef });
}

export type SimulatorSwitches = z.input<typeof import("../../simulator/switches.ts").switchesSchema>;
