import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Simulator, startSimulator } from "../simulator/simulator.ts";
import { LABEL_ENVIRONMENT } from "../src/api/names.ts";
import { realClock } from "../src/core/clock.ts";
import { Notifier } from "../src/core/notifier.ts";
import { DEPLOYMENTS, type Deployment, type KubeObject, PODS, type Pod } from "../src/kube/resource.ts";
import { silentLogger } from "../src/observe/logger.ts";
import { ENVIRONMENTS } from "../src/reconcile/finalizer.ts";
import { type Change, Informer } from "../src/watch/informer.ts";
import { Supervisor } from "../testbed/cluster/supervisor.ts";
import type { SimulatedNode } from "../testbed/node/node.ts";
import { Board } from "./board.ts";
import type { DemoCluster } from "./cluster.ts";
import type { Ending } from "./ending.ts";
import { startDemoNode } from "./node.ts";
import { OperatorProcess } from "./operator.ts";
import type { DemoOptions } from "./options.ts";
import { BATCH, RESEARCH } from "./sample.ts";
import { hasStarted } from "./session-pods.ts";
import { StagedEnvironment } from "./staged-environment.ts";

/** The worker for one claimed session. */
const SESSION_WORKER = fileURLToPath(new URL("../examples/worker/worker.mjs", import.meta.url));
/** The worker that polls. */
const ALWAYS_ON_WORKER = fileURLToPath(new URL("../examples/worker/always-on.mjs", import.meta.url));

/** How a wait ended. */
export type Waited = "done" | "late" | "ended";

/**
 * Everything that serves sessions: the simulator, the node, the operator, the sample Environments, and a view of them.
 */
export class Stage {
  readonly simulator: Simulator;
  readonly environments: readonly StagedEnvironment[];
  readonly board: Board;
  readonly cluster: DemoCluster;
  readonly #node: SimulatedNode;
  readonly #operator: OperatorProcess;
  readonly #ending: Ending;
  readonly #changed = new Notifier();
  readonly #watching = new AbortController();
  readonly #pods: Informer<Pod>;
  readonly #deployments: Informer<Deployment>;
  readonly #objects: Informer<KubeObject>;
  #watches: Promise<unknown> = Promise.resolve();

  private constructor(parts: StageParts) {
    this.simulator = parts.simulator;
    this.environments = parts.environments;
    this.board = parts.board;
    this.cluster = parts.cluster;
    this.#node = parts.node;
    this.#operator = parts.operator;
    this.#ending = parts.ending;
    const { kube: client, namespace } = parts.cluster;
    const common = { client, namespace, clock: realClock, logger: silentLogger };
    this.#pods = new Informer<Pod>({ ...common, resource: PODS, labelSelector: LABEL_ENVIRONMENT });
    this.#deployments = new Informer<Deployment>({
      ...common,
      resource: DEPLOYMENTS,
      labelSelector: LABEL_ENVIRONMENT,
    });
    this.#objects = new Informer<KubeObject>({ ...common, resource: ENVIRONMENTS });
  }

  /** Starts everything. `things` disposes of what was started, even if a later step fails. */
  static async start(
    cluster: DemoCluster,
    options: DemoOptions,
    ending: Ending,
    supervisor: Supervisor,
    things: AsyncDisposableStack,
  ): Promise<Stage> {
    const simulator = things.use(await startSimulator({ seed: options.seed }));
    const samples = options.workers > 0 ? [RESEARCH, BATCH] : [RESEARCH];
    const known = samples.map((sample) => ({ sample, environmentId: simulator.createEnvironment().id }));
    const board = new Board(
      () => simulator.clock.now(),
      known.map(({ sample: { name, mode }, environmentId }) => ({ name, mode, environmentId })),
    );
    const environments = known.map(({ sample, environmentId }) => new StagedEnvironment(sample, environmentId, board));
    const node = things.use(await startDemoNode(cluster, options));
    const operator = await OperatorProcess.start(supervisor, {
      kubeconfig: cluster.operatorKubeconfig,
      workApi: simulator.url,
      flags: cluster.operatorFlags,
      env: process.env,
    });
    void operator.failed.then((error) => ending.fail(error));
    const stage = new Stage({ simulator, environments, board, cluster, node, operator, ending });
    stage.#watch();
    things.defer(() => stage.#stopWatching());
    for (const environment of environments) {
      const values = environment.mode === "sessions" ? sessionValues(options, cluster) : workerValues(options);
      await environment.apply(cluster, simulator, values);
    }
    return stage;
  }

  /** The path of the operator's log, until the demo ends. */
  get operatorLog(): string {
    return this.#operator.log;
  }

  get metricsUrl(): string {
    return this.#operator.metricsUrl;
  }

  get consoleUrl(): string {
    return this.#operator.consoleUrl;
  }

  /** Waits until `predicate` holds, and checks it after every change. `patienceMs` may be infinite. */
  async until(
    predicate: () => boolean,
    patienceMs: number,
    signal: AbortSignal = this.#ending.signal,
  ): Promise<Waited> {
    const late = patienceMs === Number.POSITIVE_INFINITY ? NEVER : AbortSignal.timeout(patienceMs);
    const both = AbortSignal.any([late, signal]);
    for (;;) {
      if (predicate()) return "done";
      if (signal.aborted) return "ended";
      if (late.aborted) return "late";
      await this.#changed.wait(both);
    }
  }

  /** Whether every Environment serves. */
  get isReady(): boolean {
    return this.environments.every(({ isReady }) => isReady);
  }

  /** The Environments that do not serve, and their `Ready` messages, one per line. */
  get obstacles(): string[] {
    return this.environments.flatMap(({ name, obstacle }) => (obstacle === undefined ? [] : `${name}: ${obstacle}`));
  }

  get areEnvironmentsGone(): boolean {
    return this.#objects.hasSynced && this.#objects.list().length === 0;
  }

  operatorCounts(): ReturnType<OperatorProcess["counts"]> {
    return this.#operator.counts();
  }

  /** Returns what went wrong, if anything. */
  stopOperator(): Promise<string | undefined> {
    return this.#operator.stop();
  }

  #watch(): void {
    const { board, simulator } = this;
    simulator.on("item", (record, event) => {
      board.item(record, event);
      this.#changed.notify();
    });
    simulator.on("session", (sessionId, event) => board.session(sessionId, event));
    this.#pods.subscribe((change) => {
      const { sessions, workers } = this.#ownerOf(change.object) ?? {};
      sessions?.pod(change);
      workers?.pod(change);
      this.#changed.notify();
    });
    this.#deployments.subscribe((change) => {
      this.#ownerOf(change.object)?.workers?.deployment(change);
      this.#changed.notify();
    });
    this.#objects.subscribe((change) => this.#environmentChanged(change));
    this.#node.subscribe((event) => {
      if (event.type === "status" && hasStarted(event.status)) this.#ownerOf(event.pod)?.sessions?.started(event.pod);
      if (event.type === "fault") board.notice(`the simulated node failed: ${String(event.error)}`);
    });
    const { signal } = this.#watching;
    this.#watches = Promise.all([this.#pods, this.#deployments, this.#objects].map((it) => it.run(signal)));
  }

  #environmentChanged({ type, object }: Change<KubeObject>): void {
    const environment = this.environments.find(({ name }) => name === object.metadata.name);
    environment?.changed(type === "deleted" ? undefined : object);
    this.#changed.notify();
  }

  #ownerOf({ metadata }: KubeObject): StagedEnvironment | undefined {
    return this.environments.find(({ name }) => name === metadata.labels?.[LABEL_ENVIRONMENT]);
  }

  async #stopWatching(): Promise<void> {
    this.#watching.abort();
    await this.#watches;
  }
}

/** A signal that never aborts. */
export const NEVER = new AbortController().signal;

interface StageParts {
  readonly simulator: Simulator;
  readonly environments: readonly StagedEnvironment[];
  readonly board: Board;
  readonly cluster: DemoCluster;
  readonly node: SimulatedNode;
  readonly operator: OperatorProcess;
  readonly ending: Ending;
}

/** The API server of a given cluster can't reach the simulated node on this machine, so nothing can attach to its Pods. */
const parkingIn = ({ foreign }: DemoCluster) => (foreign ? "Key" : "Shell");

const sessionValues = ({ warm, max }: DemoOptions, cluster: DemoCluster) => ({
  WORKER: SESSION_WORKER,
  WARM: warm,
  MAX: max,
  PARKING: parkingIn(cluster),
});
const workerValues = ({ workers }: DemoOptions) => ({ WORKER: ALWAYS_ON_WORKER, MAX: workers });

/** Supervises the processes that the demo starts, in its own folder, and ends them with the demo. */
export function startSupervisor(): Promise<Supervisor> {
  return Supervisor.start(join(tmpdir(), `berth-demo-${randomBytes(6).toString("hex")}`));
}
