import { type Clock, realClock } from "../../src/core/clock.ts";
import { errorText } from "../../src/core/errors.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { Container, Pod, PodStatus, Taint } from "../../src/kube/objects.ts";
import { NODES, PODS } from "../../src/kube/resource.ts";
import { type Logger, silentLogger } from "../../src/observe/logger.ts";
import { type Change, Informer } from "../../src/watch/informer.ts";
import { type Complaint, EventWriter } from "./event-writer.ts";
import {
  chosenFate,
  type Fate,
  type FateChooser,
  isWholeLife,
  mainContainerName,
  runningContainerName,
} from "./fate.ts";
import { type AttachFaultChooser, KubeletServer } from "./kubelet-server.ts";
import { type Latencies, Latency, seededRandom } from "./latency.ts";
import { ObjectReader } from "./object-reader.ts";
import { PodAddresses } from "./pod-addresses.ts";
import type { PodVerdict } from "./pod-conditions.ts";
import { type PodHost, PodMachine } from "./pod-machine.ts";
import { type ImageStandIn, ProcessRuntime } from "./process-runtime.ts";
import { type NodeCapacity, Registration } from "./registration.ts";
import type { ContainerRuntime } from "./runtime.ts";
import { ScriptedPollers } from "./scripted-poller.ts";
import { type EvictionCause, evictionVerdict, refusalVerdict, ScriptedRuntime } from "./scripted-runtime.ts";
import { ScriptedWorkers } from "./scripted-worker.ts";
import { StatusWriter } from "./status-writer.ts";
import type { VolumeFiles } from "./volume-files.ts";

export type { FateChooser, FateInput } from "./fate.ts";
export { FATE_ANNOTATION } from "./fate.ts";
export type { AttachFault, AttachFaultChooser } from "./kubelet-server.ts";
export type { NodeCapacity } from "./registration.ts";
export { SIMULATED_LABEL } from "./registration.ts";

export type RuntimeKind = "scripted" | "process";

export interface NodeOptions {
  /** A client, or the path of a kubeconfig whose user has the permissions of a kubelet. */
  readonly client: KubeClient | string;
  /**
   * The name of the Node object. Tests that share a cluster bind their Pods with `nodeSelector:
   * {kubernetes.io/hostname: name}`.
   */
  readonly name: string;
  /** Defaults to 1,000 Pods, 64 CPUs, and 256 GiB. */
  readonly capacity?: NodeCapacity;
  readonly labels?: Readonly<Record<string, string>>;
  readonly taints?: readonly Taint[];
  /** The runtime of containers without a chosen fate. Defaults to scripted. */
  readonly runtime?: RuntimeKind | ((pod: Pod, container: Container) => RuntimeKind);
  /** Fates chosen in code. They override annotations. */
  readonly fates?: FateChooser;
  /**
   * How many times faster than real time the node's own durations and those of fates run. Defaults to 1. Durations that
   * the API specifies (grace periods, active deadlines, leases) are never scaled.
   */
  readonly timeScale?: number;
  /** Replaces some of the measured durations. */
  readonly latencies?: Partial<Latencies>;
  /** Seeds everything that is random. */
  readonly seed?: number;
  readonly clock?: Clock;
  readonly logger?: Logger;
  /** The folder of process containers. Defaults to a new temporary folder that is removed at the end. */
  readonly workDir?: string;
  /** Replacements for the images of process containers, by name: an entrypoint and variables. */
  readonly images?: Readonly<Record<string, ImageStandIn>>;
  /** The share of looks, 0 to 1, at which the watch of Secrets lags behind that of Pods. Defaults to 0. */
  readonly staleReads?: number;
  /** Faults of attached clients, chosen in code. */
  readonly attachFaults?: AttachFaultChooser;
}

/** What happens on a node, for tests and displays. */
export type NodeEvent =
  | { readonly type: "status"; readonly pod: Pod; readonly status: PodStatus }
  | { readonly type: "gone"; readonly pod: Pod }
  | { readonly type: "fault"; readonly pod: Pod; readonly error: unknown };

/** The kubelet's messages (pkg/kubelet/nodeshutdown). */
const SHUTDOWN_VERDICT: PodVerdict = {
  reason: "Terminated",
  message: "Pod was terminated in response to imminent node shutdown.",
  disrupted: true,
};
const SHUTDOWN_REFUSAL: PodVerdict = {
  reason: "NodeShutdown",
  message: "Pod was rejected: Pod was rejected as the node is shutting down.",
};
/** The grace that clouds give to the machines that they reclaim. */
const SHUTDOWN_GRACE_SECONDS = 30;

export interface PodRef {
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

/** A simulated kubelet. See docs/simulated-node.md. */
export interface SimulatedNode extends AsyncDisposable {
  readonly name: string;
  /** The Pods on the node as last seen, with their latest statuses, even if those aren't written yet. */
  readonly pods: readonly { readonly pod: Pod; readonly status: PodStatus | undefined; readonly running: boolean }[];
  readonly counters: { readonly statusWrites: number; readonly objectReads: number };
  /** Calls `fn` for each event. Returns a function that unsubscribes. */
  subscribe(fn: (event: NodeEvent) => void): () => void;
  /**
   * Kills a running container, by default the session's with an external SIGKILL. Returns false if it isn't running.
   */
  kill(pod: PodRef, options?: { container?: string; by?: "OOMKilled" | "SIGKILL" }): boolean;
  /**
   * Evicts a Pod, like a node whose Pod exceeds its disk limit or that runs out of memory. Returns false if the Pod
   * isn't here.
   */
  evict(pod: PodRef, cause?: EvictionCause): boolean;
  /** Returns the output of a container so far. A scripted one prints only that it got its session. */
  logs(pod: PodRef, container?: string): Promise<string>;
  /**
   * Cordons the node and requests the eviction of every Pod. Resolves with the names of the Pods whose eviction was
   * rejected.
   */
  drain(): Promise<string[]>;
  cordon(unschedulable?: boolean): Promise<void>;
  /** Loses the node: it reports nothing and hears nothing. Its containers keep running. */
  fail(): void;
  /**
   * Shuts the machine down gracefully: the Node becomes not ready, its Pods end within at most this grace, and new ones
   * are rejected. Resolves when nothing runs any more. The Node stays in this state until `recover`.
   */
  shutDown(graceSeconds?: number): Promise<void>;
  /** Restarts the machine and its kubelet. The containers have ended, but the kubelet doesn't know how. */
  reboot(): void;
  /** Brings back a node that was lost or shut down. */
  recover(): Promise<void>;
  /** Kills all containers, removes the Node from the API, and ends. Idempotent. */
  stop(): Promise<void>;
}

/** Starts a node and resolves when it's Ready and accepts Pods. Throws KubeApiError if it can't be registered. */
export async function startNode(options: NodeOptions): Promise<SimulatedNode> {
  const node = new KubeletDouble(options);
  try {
    await node.begin();
  } catch (error) {
    await node.stop();
    throw error;
  }
  return node;
}

class KubeletDouble implements SimulatedNode, PodHost {
  readonly name: string;
  readonly clock: Clock;
  readonly #options: NodeOptions;
  readonly #logger: Logger;
  readonly #seed: number;
  readonly #client: KubeClient;
  readonly #ownsClient: boolean;
  readonly #registration: Registration;
  readonly #writer: StatusWriter;
  readonly #events: EventWriter;
  readonly #reader: ObjectReader;
  readonly #workers: ScriptedWorkers;
  readonly #pollers: ScriptedPollers;
  readonly #scripted: ScriptedRuntime;
  readonly #processes: ProcessRuntime;
  readonly #server: KubeletServer;
  readonly #machines = new Map<string, PodMachine>();
  readonly #listeners = new Set<(event: NodeEvent) => void>();
  /** Aborts the node's connection to the API: heartbeats and the watch. */
  #link = new AbortController();
  #linked: Promise<unknown> = Promise.resolve();
  #stopping: Promise<void> | undefined;
  readonly #addresses = new PodAddresses();

  constructor(options: NodeOptions) {
    const { name, clock = realClock, logger = silentLogger, seed = 1 } = options;
    this.#options = options;
    this.name = name;
    this.clock = clock;
    this.#logger = logger;
    this.#seed = seed;
    this.#ownsClient = typeof options.client === "string";
    this.#client =
      typeof options.client === "string"
        ? new KubeClient({
            access: loadKubeConfig(undefined, { KUBECONFIG: options.client }),
            clock,
            userAgent: `simulated-node/${name}`,
          })
        : options.client;
    const client = this.#client;
    const { capacity = {}, labels = {}, taints = [], staleReads = 0 } = options;
    this.#registration = new Registration({ client, clock, logger, name, capacity, labels, taints });
    this.#writer = new StatusWriter({ client, clock, logger, random: seededRandom(seed, "writer") });
    this.#events = new EventWriter({ client, clock, logger, node: name });
    this.#reader = new ObjectReader({ client, random: seededRandom(seed, "reader"), staleReads });
    this.#workers = new ScriptedWorkers(clock);
    this.#pollers = new ScriptedPollers(clock, this.#workers);
    this.#scripted = new ScriptedRuntime(clock, this.#workers, this.#pollers);
    this.#processes = new ProcessRuntime({ clock, workDir: options.workDir, images: options.images });
    this.#server = new KubeletServer({ find: (ref) => this.#find(ref), faults: options.attachFaults });
  }

  async begin(): Promise<void> {
    const authority = await this.#registration.clientAuthority();
    if (authority !== undefined) await this.#server.listen(authority);
    this.#registration.kubeletPort = this.#server.port;
    await this.#registration.register();
    this.#connect();
  }

  get pods() {
    return [...this.#machines.values()].map(({ pod, status, running }) => ({ pod, status, running }));
  }

  get counters() {
    return { statusWrites: this.#writer.writes, objectReads: this.#reader.reads };
  }

  subscribe(fn: (event: NodeEvent) => void): () => void {
    this.#listeners.add(fn);
    return () => void this.#listeners.delete(fn);
  }

  kill(ref: PodRef, { container, by = "SIGKILL" }: { container?: string; by?: "OOMKilled" | "SIGKILL" } = {}): boolean {
    const machine = this.#find(ref);
    const name = container ?? (machine && runningContainerName(machine.pod));
    return name !== undefined && machine?.kill(name, by) === true;
  }

  evict(ref: PodRef, cause: EvictionCause = "ephemeral-storage"): boolean {
    const machine = this.#find(ref);
    machine?.evict(evictionVerdict(machine.pod, cause));
    return machine !== undefined;
  }

  async logs(ref: PodRef, container?: string): Promise<string> {
    const machine = this.#find(ref);
    const name = container ?? (machine && runningContainerName(machine.pod));
    if (!machine || name === undefined) return "";
    const log = await this.#processes.logs(machine.pod, name);
    return log === "" ? String((await machine.container(name)?.streams?.log()) ?? "") : log;
  }

  async cordon(unschedulable = true): Promise<void> {
    await this.#client.patch(NODES, { name: this.name }, { spec: { unschedulable } }, { type: "merge" });
  }

  async drain(): Promise<string[]> {
    await this.cordon();
    const refused = await Promise.all(
      this.pods.map(async ({ pod: { metadata } }) => {
        const { namespace = "", name = "" } = metadata;
        const path = `/api/v1/namespaces/${namespace}/pods/${name}/eviction`;
        const body = { apiVersion: "policy/v1", kind: "Eviction", metadata: { namespace, name } };
        try {
          await this.#client.raw("POST", path, body);
          return [];
        } catch (error) {
          if (!(error instanceof KubeApiError)) throw error;
          return error.status === 404 ? [] : [name];
        }
      }),
    );
    return refused.flat();
  }

  async shutDown(graceSeconds = SHUTDOWN_GRACE_SECONDS): Promise<void> {
    this.#registration.notReady = "node is shutting down";
    await this.#registration.reportReady();
    const machines = [...this.#machines.values()];
    for (const machine of machines) machine.evict(SHUTDOWN_VERDICT, graceSeconds);
    await Promise.all(machines.map((machine) => machine.ended));
  }

  reboot(): void {
    for (const machine of this.#machines.values()) machine.reboot();
  }

  fail(): void {
    this.#events.isPaused = true;
    this.#writer.pause();
    this.#server.fallSilent();
    this.#link.abort();
  }

  async recover(): Promise<void> {
    this.#registration.notReady = null;
    this.#link.abort();
    await this.#linked;
    this.#writer.resume();
    this.#server.recover();
    this.#events.isPaused = false;
    await this.#registration.reportReady();
    this.#connect();
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    this.#link.abort();
    this.#writer.stop();
    await Promise.all([...this.#machines.values()].map((machine) => machine.stop()));
    await this.#linked;
    await this.#registration.unregister();
    await this.#events.ended();
    await Promise.all([this.#workers, this.#pollers, this.#processes, this.#server].map((part) => part.close()));
    if (this.#ownsClient) await this.#client.close();
  }

  /** Starts heartbeats and a fresh view of the Pods. What a lost node missed shows up as changes. */
  #connect(): void {
    if (this.#stopping) return;
    this.#link = new AbortController();
    const { signal } = this.#link;
    const informer = new Informer<Pod>({
      client: this.#client,
      resource: PODS,
      fieldSelector: `spec.nodeName=${this.name}`,
      clock: this.clock,
      logger: this.#logger,
    });
    informer.subscribe((change) => {
      if (!signal.aborted) this.#heed(change);
    });
    void informer.synced.then(() => {
      if (!signal.aborted) this.#dropUnlisted(informer);
    });
    this.#linked = Promise.all([this.#registration.heartbeat(signal), informer.run(signal)]);
  }

  #heed({ type, object: pod }: Change<Pod>): void {
    const uid = pod.metadata.uid ?? "";
    const machine = this.#machines.get(uid);
    if (type === "deleted") machine?.remove(pod);
    else if (machine) machine.update(pod);
    else this.#take(uid, pod);
  }

  #take(uid: string, pod: Pod): void {
    const machine = new PodMachine(pod, this);
    this.#machines.set(uid, machine);
    machine.begin();
  }

  /** Removes Pods that were deleted while the watch was down. */
  #dropUnlisted(informer: Informer<Pod>): void {
    for (const machine of this.#machines.values()) {
      const { namespace, name = "", uid } = machine.pod.metadata;
      if (informer.get(namespace, name)?.metadata.uid !== uid) machine.remove(machine.pod);
    }
  }

  #find({ namespace, name }: PodRef): PodMachine | undefined {
    return [...this.#machines.values()].find(
      ({ pod: { metadata } }) => metadata.name === name && metadata.namespace === namespace,
    );
  }

  #emit(event: NodeEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  // Implementation of PodHost.

  allocateIP(): string {
    return this.#addresses.next();
  }

  latencyOf(pod: Pod): Latency {
    const { namespace, name } = pod.metadata;
    const random = seededRandom(this.#seed, `${namespace}/${name}`);
    return new Latency(random, this.#options.timeScale, this.#options.latencies);
  }

  fateOf(pod: Pod, container: Container): Fate | undefined {
    return chosenFate(pod, container, this.#options.fates);
  }

  refusalOf(pod: Pod): PodVerdict | undefined {
    if (this.#registration.notReady !== null) return SHUTDOWN_REFUSAL;
    const container = pod.spec.containers.find(({ name }) => name === mainContainerName(pod));
    return container && refusalVerdict(pod, container, this.#options.fates);
  }

  /** Containers with a scripted life run without a process, regardless of the node's default runtime. */
  runtimeOf(pod: Pod, container: Container, fate: Fate | undefined): ContainerRuntime {
    const { runtime = "scripted" } = this.#options;
    const kind = typeof runtime === "function" ? runtime(pod, container) : runtime;
    if (kind === "scripted") return this.#scripted;
    return fate && isWholeLife(fate) ? this.#scripted : this.#processes;
  }

  read(...args: Parameters<PodHost["read"]>): ReturnType<PodHost["read"]> {
    return this.#reader.read(...args);
  }

  /** If all containers of a Pod are scripted, no process could read the files. */
  async writeFiles(pod: Pod, volumes: ReadonlyMap<string, VolumeFiles>): Promise<void> {
    const { initContainers = [], containers, ephemeralContainers = [] } = pod.spec;
    const all = [...initContainers, ...containers, ...ephemeralContainers];
    const processes = all.some((container) => this.runtimeOf(pod, container, undefined) === this.#processes);
    if (processes) await this.#processes.writeFiles(pod, volumes);
  }

  report(pod: Pod, status: PodStatus): void {
    this.#writer.report(pod, status);
    this.#emit({ type: "status", pod, status });
  }

  complain(pod: Pod, complaint: Complaint): void {
    this.#events.tell(pod, complaint);
  }

  finalize(pod: Pod): void {
    this.#writer.finalize(pod);
  }

  forget(pod: Pod): void {
    this.#writer.forget(pod);
    this.#reader.forget(pod);
    this.#events.forget(pod);
    this.#machines.delete(pod.metadata.uid ?? "");
    this.#scripted.forget(pod);
    void this.#processes.forget(pod).catch((error: unknown) => this.fault(pod, error));
    this.#emit({ type: "gone", pod });
  }

  fault(pod: Pod, error: unknown): void {
    this.#logger.error({ pod: pod.metadata.name, error: errorText(error) }, "the simulated node failed");
    this.#emit({ type: "fault", pod, error });
  }
}
