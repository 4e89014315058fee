import { setTimeout as delay } from "node:timers/promises";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import type { Container, Node, Pod, PodSpec } from "../../src/kube/objects.ts";
import { NODES, PODS, SECRETS } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { Informer } from "../../src/watch/informer.ts";
import type { NodeCluster } from "../real-node/node-cluster.ts";
import { WORKER_IMAGE } from "./image.ts";
import { type ContainerShape, type NodeView, Normalizer, nodeView, type Sequence, type Step } from "./sequence.ts";

/** The Pods of a lost node take the longest: the monitor's grace, the toleration, and the Pod's grace. */
const DEFAULT_LIMIT_MS = 120_000;
const POLL_MS = 25;
/** After this much silence, a Pod's status no longer changes, because the kubelet looks every 10 to 15 s. */
export const QUIET_MS = 20_000;

const NAMESPACE = "recorded";

/** The shape of a recorded Pod, in addition to what all of them share. */
export interface PodShape {
  /** The session's container, `c`. */
  readonly container?: ContainerShape;
  readonly initContainers?: readonly ContainerShape[];
  readonly spec?: Partial<PodSpec>;
  /** The container waits for a key in the Secret with the Pod's name. */
  readonly parked?: boolean;
}

/** A program that ends with 143 when it's told to end. */
const PATIENT = ["/bin/sh", "-c", "trap 'exit 143' TERM; sleep 2147483647 & wait"];

const TOLERATION_SECONDS = 5;
/** The tolerations that every Pod gets by default, shortened from 300 s to what a recording has time for. */
const TOLERATIONS = ["not-ready", "unreachable"].map((what) => ({
  key: `node.kubernetes.io/${what}`,
  operator: "Exists",
  effect: "NoExecute",
  tolerationSeconds: TOLERATION_SECONDS,
}));

/** A Pod whose every status is recorded. */
export class Recording {
  readonly name: string;
  readonly note: string;
  readonly spec: Sequence["spec"];
  readonly steps: Step[] = [];
  pod: Pod | undefined;
  gone = false;
  changedAtMs = 0;
  #normalizer: Normalizer | undefined;
  #did: string[] = [];
  #node: NodeView | undefined;
  #lastNode = "";
  #last = "";

  constructor(name: string, note: string, spec: Sequence["spec"]) {
    this.name = name;
    this.note = note;
    this.spec = spec;
  }

  did(what: string): void {
    if (!this.gone) this.#did.push(what);
  }

  sawNode(node: NodeView): void {
    this.#node = node;
  }

  saw(type: Step["type"], pod: Pod): void {
    if (this.gone) return;
    this.pod = pod;
    this.#normalizer ??= new Normalizer(pod);
    const metadata = this.#normalizer.metadata(pod);
    const status = this.#normalizer.apply(pod.status ?? {});
    const said = JSON.stringify({ type: type === "deleted", metadata, status });
    if (said === this.#last) return;
    this.#last = said;
    const node = JSON.stringify(this.#node);
    this.steps.push({
      ...(this.#did.length > 0 && { did: this.#did }),
      ...(node !== this.#lastNode && this.#node && { node: this.#node }),
      ...{ type, metadata, status },
    });
    this.#lastNode = node;
    this.#did = [];
    this.gone = type === "deleted";
    this.changedAtMs = performance.now();
  }
}

/** One cluster, its recorded Pods, and what can be done to them. */
export class Stage implements AsyncDisposable {
  readonly cluster: NodeCluster;
  readonly dir: string;
  readonly client: KubeClient;
  readonly recordings: Recording[] = [];
  readonly #stop = new AbortController();
  readonly #watches: Promise<unknown>;
  readonly #nodes: Informer<Node>;
  readonly #pods: Informer<Pod>;

  /** @param dir the folder of the act, outside the cluster's own folder */
  constructor(cluster: NodeCluster, dir: string) {
    this.dir = dir;
    this.cluster = cluster;
    this.client = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig) });
    const common = { client: this.client, clock: realClock, logger: silentLogger };
    this.#nodes = new Informer<Node>({ ...common, resource: NODES });
    this.#pods = new Informer<Pod>({ ...common, resource: PODS, namespace: NAMESPACE });
    this.#nodes.subscribe(({ object }) => {
      if (object.metadata.name !== cluster.nodeName) return;
      for (const recording of this.recordings) recording.sawNode(nodeView(object));
    });
    this.#pods.subscribe(({ type, object }) => this.#recordingOf(object)?.saw(type, object));
    const { signal } = this.#stop;
    this.#watches = Promise.all([this.#nodes.run(signal), this.#pods.run(signal)]);
  }

  async begin(): Promise<void> {
    await this.cluster.api.create("/api/v1/namespaces", { metadata: { name: NAMESPACE } });
    const account = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/default`;
    await this.until("the namespace's account", async () => {
      return (await this.cluster.api.get(account).catch(() => undefined)) !== undefined;
    });
    await this.#nodes.synced;
    await this.#pods.synced;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#watches;
    await this.client.close();
  }

  /** Creates a Pod that is recorded under this name. */
  async pod(name: string, note: string, shape: PodShape = {}): Promise<Recording> {
    const go = { name: "GO", valueFrom: { secretKeyRef: { name, key: "go" } } };
    const base = { image: WORKER_IMAGE, command: PATIENT, imagePullPolicy: "IfNotPresent" };
    const container: Container = { name: "c", ...base, ...(shape.parked && { env: [go] }), ...shape.container };
    const init = shape.initContainers?.map((one, i): Container => ({ name: `init-${i}`, ...base, ...one }));
    const spec: PodSpec = {
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 5,
      automountServiceAccountToken: false,
      tolerations: TOLERATIONS,
      ...shape.spec,
      containers: [container],
      ...(init && { initContainers: init }),
    };
    const pod: Pod = { metadata: { name, namespace: NAMESPACE }, spec };
    const recording = new Recording(name, note, spec);
    const node = this.node();
    if (node) recording.sawNode(node);
    this.recordings.push(recording);
    await this.client.create(PODS, pod);
    return recording;
  }

  /** Records for all existing Pods, or for one, what is about to be done. */
  did(what: string, only?: Recording): void {
    for (const recording of only ? [only] : this.recordings) recording.did(what);
  }

  async until(what: string, done: () => unknown, limitMs = DEFAULT_LIMIT_MS): Promise<void> {
    const deadline = performance.now() + limitMs;
    while (!(await done())) {
      if (performance.now() > deadline)
        throw new Error(`${what}: not within ${limitMs / 1_000} s\n${this.#standing()}`);
      await delay(POLL_MS);
    }
  }

  running(...recordings: Recording[]): Promise<void> {
    const runs = ({ pod }: Recording) => stateOf(pod)?.running !== undefined;
    return this.until("running", () => recordings.every(runs));
  }

  parked(...recordings: Recording[]): Promise<void> {
    return this.until("parked", () => recordings.every(({ pod }) => isParked(pod)));
  }

  gone(...recordings: Recording[]): Promise<void> {
    return this.until("gone", () => recordings.every(({ gone }) => gone));
  }

  failed(...recordings: Recording[]): Promise<void> {
    return this.until("ended", () => recordings.every(({ pod }) => /Failed|Succeeded/.test(pod?.status?.phase ?? "")));
  }

  /** Waits until the status of these Pods hasn't changed for a while. */
  quiet(...recordings: Recording[]): Promise<void> {
    const askedMs = performance.now();
    const isQuiet = ({ changedAtMs, gone }: Recording) =>
      gone || performance.now() - Math.max(askedMs, changedAtMs) > QUIET_MS;
    return this.until("quiet", () => recordings.every(isQuiet), 2 * DEFAULT_LIMIT_MS);
  }

  async delete(recording: Recording, gracePeriodSeconds?: number): Promise<void> {
    recording.did(gracePeriodSeconds === undefined ? "deleted" : `deleted with a grace of ${gracePeriodSeconds} s`);
    const query = gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds };
    await this.client.delete(PODS, { namespace: NAMESPACE, name: recording.name }, query);
  }

  async evict(recording: Recording): Promise<void> {
    recording.did("evicted with the Eviction API");
    const metadata = { name: recording.name, namespace: NAMESPACE };
    const path = `/api/v1/namespaces/${NAMESPACE}/pods/${recording.name}/eviction`;
    await this.client.raw("POST", path, { apiVersion: "policy/v1", kind: "Eviction", metadata });
  }

  /** Gives a parked Pod its key and touches it. */
  async open(recording: Recording): Promise<void> {
    const { name } = recording;
    recording.did("given its key, and touched");
    const data = { go: Buffer.from("hello").toString("base64") };
    await this.client.create(SECRETS, { metadata: { name, namespace: NAMESPACE }, data });
    const patch = { metadata: { labels: { touched: "yes" } } };
    await this.client.patch(PODS, { namespace: NAMESPACE, name }, patch, { type: "merge" });
  }

  async taint(key: string, effect: string): Promise<void> {
    this.did(`the Node was tainted ${key}:${effect}`);
    await this.cluster.api.request("PATCH", `/api/v1/nodes/${this.cluster.nodeName}`, {
      body: { spec: { taints: [{ key, effect }] } },
      contentType: "application/strategic-merge-patch+json",
    });
  }

  async untaint(): Promise<void> {
    await this.cluster.api.request("PATCH", `/api/v1/nodes/${this.cluster.nodeName}`, {
      body: { spec: { taints: null } },
      contentType: "application/merge-patch+json",
    });
  }

  /** Returns the recorded part of the Node now. */
  node(): NodeView | undefined {
    const node = this.#nodes.get(undefined, this.cluster.nodeName);
    return node && nodeView(node);
  }

  #recordingOf({ metadata }: Pod): Recording | undefined {
    return this.recordings.find(({ name }) => name === metadata.name);
  }

  #standing(): string {
    const lines = this.recordings.map(({ name, gone, pod }) => {
      return `  ${name}: ${gone ? "gone" : JSON.stringify(pod?.status)}`;
    });
    return [`  node: ${JSON.stringify(this.node())}`, ...lines].join("\n");
  }
}

export function stateOf(pod: Pod | undefined) {
  return pod?.status?.containerStatuses?.[0]?.state;
}

export function isParked(pod: Pod | undefined): boolean {
  return stateOf(pod)?.waiting?.reason === "CreateContainerConfigError";
}
