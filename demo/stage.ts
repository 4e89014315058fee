import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Simulator, startSimulator } from "../simulator/simulator.ts";
import { API_VERSION, KIND, LABEL_ENVIRONMENT } from "../src/api/names.ts";
import { realClock } from "../src/core/clock.ts";
import { Notifier } from "../src/core/notifier.ts";
import { Informer } from "../src/kube/informer.ts";
import { type KubeObject, PODS, type Pod, SECRETS } from "../src/kube/resource.ts";
import { silentLogger } from "../src/observe/logger.ts";
import { ENVIRONMENTS } from "../src/sessions/environment-hold.ts";
import { Supervisor } from "../testbed/cluster/supervisor.ts";
import { SIMULATED_LABEL, type SimulatedNode, startNode } from "../testbed/node/node.ts";
import { Board, hasStarted } from "./board.ts";
import type { DemoCluster } from "./cluster.ts";
import type { Ending } from "./ending.ts";
import { OperatorProcess } from "./operator.ts";
import type { DemoOptions } from "./options.ts";
import { ENVIRONMENT_NAME, KEY_SECRET_NAME, sampleEnvironment } from "./sample.ts";
import { SCRIPTED_WORK_MS } from "./sessions.ts";

const WORKER = fileURLToPath(new URL("../examples/worker/worker.mjs", import.meta.url));

/** How a wait ended. */
export type Waited = "done" | "late" | "ended";

/** Everything that serves sessions, put together: simulator, node, operator, the sample Environment, and a view of it. */
export class Stage {
  readonly simulator: Simulator;
  readonly environmentId: string;
  readonly board: Board;
  readonly cluster: DemoCluster;
  readonly #node: SimulatedNode;
  readonly #operator: OperatorProcess;
  readonly #ending: Ending;
  readonly #changed = new Notifier();
  readonly #watching = new AbortController();
  readonly #pods: Informer<Pod>;
  readonly #environments: Informer<KubeObject>;
  #watches: Promise<unknown> = Promise.resolve();
  #announced: string | undefined;

  private constructor(parts: StageParts) {
    this.simulator = parts.simulator;
    this.environmentId = parts.environmentId;
    this.cluster = parts.cluster;
    this.#node = parts.node;
    this.#operator = parts.operator;
    this.#ending = parts.ending;
    this.board = new Board(() => parts.simulator.clock.now());
    const { kube: client, namespace } = parts.cluster;
    const common = { client, namespace, clock: realClock, logger: silentLogger };
    this.#pods = new Informer<Pod>({ ...common, resource: PODS, labelSelector: LABEL_ENVIRONMENT });
    this.#environments = new Informer<KubeObject>({ ...common, resource: ENVIRONMENTS });
  }

  /** Starts all of it; `things` ends what was started, whatever happens later. */
  static async start(
    cluster: DemoCluster,
    options: DemoOptions,
    ending: Ending,
    supervisor: Supervisor,
    things: AsyncDisposableStack,
  ): Promise<Stage> {
    const simulator = things.use(await startSimulator({ seed: options.seed }));
    const { id: environmentId, key } = simulator.createEnvironment();
    const node = things.use(await startDemoNode(cluster, options));
    const operator = await OperatorProcess.start(supervisor, {
      kubeconfig: cluster.operatorKubeconfig,
      workApi: simulator.url,
      flags: cluster.operatorFlags,
      env: process.env,
    });
    void operator.failed.then((error) => ending.fail(error));
    const stage = new Stage({ simulator, environmentId, cluster, node, operator, ending });
    stage.#watch();
    things.defer(() => stage.#stopWatching());
    await stage.#applySample(options, key);
    return stage;
  }

  /** Path of the operator's log, until the demo ends. */
  get operatorLog(): string {
    return this.#operator.log;
  }

  get metricsUrl(): string {
    return this.#operator.metricsUrl;
  }

  /** Waits for what `predicate` says, asking again after every change. */
  async until(
    predicate: () => boolean,
    patienceMs: number,
    signal: AbortSignal = this.#ending.signal,
  ): Promise<Waited> {
    const late = AbortSignal.timeout(patienceMs);
    const both = AbortSignal.any([late, signal]);
    for (;;) {
      if (predicate()) return "done";
      if (signal.aborted) return "ended";
      if (late.aborted) return "late";
      await this.#changed.wait(both);
    }
  }

  /** True when the Environment says that it serves. */
  get isReady(): boolean {
    return this.#conditions().some(({ type, status }) => type === "Ready" && status === "True");
  }

  get isEnvironmentGone(): boolean {
    return this.#environments.hasSynced && this.#environments.list().length === 0;
  }

  get podCount(): number {
    return this.#pods.list().length;
  }

  /** Why the Environment does not serve, in its own words; undefined while it does, or says nothing. */
  get obstacle(): string | undefined {
    const bad = this.#conditions().find(({ type, status }) => type === "Ready" && status !== "True");
    return bad && `${bad.reason}: ${bad.message}`;
  }

  /** Deletes the sample Environment; the operator drains what runs. */
  async deleteEnvironment(): Promise<void> {
    const ref = { namespace: this.cluster.namespace, name: ENVIRONMENT_NAME };
    await this.cluster.kube.delete(ENVIRONMENTS, ref, { propagationPolicy: "Background" });
  }

  operatorCounts(): ReturnType<OperatorProcess["counts"]> {
    return this.#operator.counts();
  }

  /** Returns what was wrong with its end. */
  stopOperator(): Promise<string | undefined> {
    return this.#operator.stop();
  }

  #watch(): void {
    const { board, simulator } = this;
    simulator.on("item", (record, event) => {
      if (record.environmentId === this.environmentId) board.item(record, event);
      this.#changed.notify();
    });
    simulator.on("session", (sessionId, event) => board.session(sessionId, event));
    this.#pods.subscribe((change) => {
      board.pod(change);
      this.#changed.notify();
    });
    this.#environments.subscribe(() => {
      this.#heedObstacle();
      this.#changed.notify();
    });
    this.#node.subscribe((event) => {
      if (event.type === "status" && hasStarted(event.status)) board.started(event.pod);
      if (event.type === "fault") board.notice(`the simulated node failed: ${String(event.error)}`);
    });
    const { signal } = this.#watching;
    this.#watches = Promise.all([this.#pods.run(signal), this.#environments.run(signal)]);
  }

  #heedObstacle(): void {
    const environment = this.#environment;
    // What is being deleted serves nothing, and says so; that is no news.
    if (!environment || environment.metadata.deletionTimestamp) return;
    const { obstacle } = this;
    if (obstacle === this.#announced) return;
    this.#announced = obstacle;
    this.board.announce(
      obstacle === undefined ? "the Environment serves" : `the Environment does not serve: ${obstacle}`,
    );
  }

  async #stopWatching(): Promise<void> {
    this.#watching.abort();
    await this.#watches;
  }

  async #applySample(options: DemoOptions, key: string): Promise<void> {
    const { kube, namespace, nodeName } = this.cluster;
    const metadata = { name: KEY_SECRET_NAME, namespace };
    await kube.create(SECRETS, { metadata, stringData: { "environment-key": key } });
    const sample = await sampleEnvironment({
      NAMESPACE: namespace,
      ENVIRONMENT_ID: this.environmentId,
      WORK_API: this.simulator.url,
      NODE: nodeName,
      WORKER,
      WARM: options.warm,
      MAX: options.max,
    });
    if (sample.apiVersion !== API_VERSION || sample.kind !== KIND) throw new Error("the sample is no Environment");
    await kube.create(ENVIRONMENTS, sample as never, { fieldValidation: "Strict" });
  }

  get #environment(): KubeObject | undefined {
    return this.#environments.get(this.cluster.namespace, ENVIRONMENT_NAME);
  }

  #conditions(): readonly { type: string; status: string; reason: string; message: string }[] {
    const status = this.#environment?.["status"] as { conditions?: [] } | undefined;
    return status?.conditions ?? [];
  }
}

interface StageParts {
  readonly simulator: Simulator;
  readonly environmentId: string;
  readonly cluster: DemoCluster;
  readonly node: SimulatedNode;
  readonly operator: OperatorProcess;
  readonly ending: Ending;
}

/** A folder for what the demo starts, and what ends it with the demo. */
export function startSupervisor(): Promise<Supervisor> {
  return Supervisor.start(join(tmpdir(), `berth-demo-${randomBytes(6).toString("hex")}`));
}

/**
 * The demo's node. In somebody's cluster it must attract nothing: a taint keeps Pods off that do not ask for it; most
 * DaemonSets, which tolerate every taint, want an operating system that this node does not claim to have; and what
 * comes all the same is played, never run as a process.
 */
function startDemoNode(cluster: DemoCluster, options: DemoOptions): Promise<SimulatedNode> {
  const { namespace, nodeName: name, foreign, nodeKubeconfig: client } = cluster;
  const isOurs = (pod: Pod) => pod.metadata.namespace === namespace;
  return startNode({
    client,
    name,
    seed: options.seed,
    labels: foreign ? { "kubernetes.io/os": "simulated", "berth.dev/demo": name } : {},
    taints: foreign
      ? [
          { key: SIMULATED_LABEL, value: "true", effect: "NoSchedule" },
          { key: SIMULATED_LABEL, value: "true", effect: "NoExecute" },
        ]
      : [],
    runtime: (pod) => (options.scripted || (foreign && !isOurs(pod)) ? "scripted" : "process"),
    fates: (pod) => (options.scripted && isOurs(pod) ? { kind: "worker", workMs: SCRIPTED_WORK_MS } : undefined),
  });
}
