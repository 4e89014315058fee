import type { Simulator } from "../simulator/simulator.ts";
import { API_VERSION, KIND } from "../src/api/names.ts";
import { type KubeObject, SECRETS } from "../src/kube/resource.ts";
import { ENVIRONMENTS } from "../src/reconcile/finalizer.ts";
import type { Board } from "./board.ts";
import type { DemoCluster } from "./cluster.ts";
import { fillSample, type Mode, type Sample, type SampleValues } from "./sample.ts";
import { SessionPods } from "./session-pods.ts";
import { WorkerPods } from "./worker-pods.ts";

/** One Environment of the demo: its sample, its queue, and its state in the cluster. */
export class StagedEnvironment {
  readonly sample: Sample;
  readonly environmentId: string;
  /** In `sessions` mode only. */
  readonly sessions: SessionPods | undefined;
  /** In `workers` mode only. */
  readonly workers: WorkerPods | undefined;
  readonly #board: Board;
  #object: KubeObject | undefined;
  #announced: string | undefined;

  constructor(sample: Sample, environmentId: string, board: Board) {
    this.sample = sample;
    this.environmentId = environmentId;
    this.#board = board;
    if (sample.mode === "sessions") this.sessions = new SessionPods(board);
    else this.workers = new WorkerPods(sample.name, board);
  }

  get name(): string {
    return this.sample.name;
  }

  get mode(): Mode {
    return this.sample.mode;
  }

  /** Whether the Environment serves. */
  get isReady(): boolean {
    return this.#conditions.some(({ type, status }) => type === "Ready" && status === "True");
  }

  /** Why it does not serve, from its conditions; undefined while it serves or has no status. */
  get obstacle(): string | undefined {
    const bad = this.#conditions.find(({ type, status }) => type === "Ready" && status !== "True");
    return bad && `${bad.reason}: ${bad.message}`;
  }

  /** Creates the Environment and the Secret with its key, as a user would. */
  async apply(cluster: DemoCluster, simulator: Simulator, values: Omit<SampleValues, FilledIn>): Promise<void> {
    const { kube, namespace, nodeName } = cluster;
    const metadata = { name: this.sample.keySecret, namespace };
    const key = simulator.environmentKey(this.environmentId);
    await kube.create(SECRETS, { metadata, stringData: { "environment-key": key } });
    const object = await fillSample(this.sample, {
      NAMESPACE: namespace,
      ENVIRONMENT_ID: this.environmentId,
      WORK_API: simulator.url,
      NODE: nodeName,
      ...values,
    });
    if (object.apiVersion !== API_VERSION || object.kind !== KIND) throw new Error("the sample is not an Environment");
    await kube.create(ENVIRONMENTS, object as never, { fieldValidation: "Strict" });
  }

  /** Deletes it; the operator drains what runs. */
  async delete({ kube, namespace }: DemoCluster): Promise<void> {
    await kube.delete(ENVIRONMENTS, { namespace, name: this.name }, { propagationPolicy: "Background" });
  }

  /** Takes in a change from the API server; undefined: it was deleted. */
  changed(object: KubeObject | undefined): void {
    this.#object = object;
    // An Environment that is being deleted does not serve, which is expected.
    if (!object || object.metadata.deletionTimestamp) return;
    const { obstacle } = this;
    if (obstacle === this.#announced) return;
    this.#announced = obstacle;
    this.#board.announce(obstacle === undefined ? "serves" : `does not serve: ${obstacle}`, this.name);
  }

  get #conditions(): readonly { type: string; status: string; reason: string; message: string }[] {
    const status = this.#object?.["status"] as { conditions?: [] } | undefined;
    return status?.conditions ?? [];
  }
}

/** The placeholders that depend on where the sample is applied. */
type FilledIn = "NAMESPACE" | "ENVIRONMENT_ID" | "WORK_API" | "NODE";
