import { KEY_WORK_ID, KEY_WORK_SECRET } from "../../../src/api/names.ts";
import type { Random } from "../../../src/core/backoff.ts";
import type { Clock, Timer } from "../../../src/core/clock.ts";
import { type Condition, type ContainerState, PODS, type Pod, SECRETS } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { HttpSender } from "../../../src/work/http.ts";
import { type Fate, parseFate } from "../../../testbed/node/fate.ts";
import { Latency } from "../../../testbed/node/latency.ts";
import type { StartRequest } from "../../../testbed/node/runtime.ts";
import { type Parking, parkingOf } from "../../../testbed/node/session-frame.ts";
import { WaitingContainer } from "../../../testbed/node/waiting-container.ts";
import { type ApiServer, type Kubelet, type RunningContainer, refusal } from "./api-server.ts";
import { BASE_URL } from "./work-api.ts";
import { type Program, Worker } from "./worker.ts";

/** How a container behaves once it gets its key. */
export interface ContainerFate {
  /** The kubelet cannot start it. */
  readonly startError: boolean;
  readonly program: Program;
  readonly servesMs: number;
}

const SECOND_MS = 1_000;
const NODE = "node-1";

/** A running container, whatever the API says about its Pod. */
export interface Running {
  readonly pod: string;
  readonly workId: string;
  readonly worker: Worker;
}

/**
 * A scheduler, a kubelet and a garbage collector for all Pods. It binds and parks Pods, reads the Secret every 10-15 s
 * and at each change of the Pod, runs the program, reports its end a little later, and follows deletions and deadlines.
 */
export class Node implements Kubelet {
  readonly #server: ApiServer;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #pods = new Map<string, KubeletPod>();
  readonly running = new Set<Running>();
  readonly #parts: ConstructorParameters<typeof Node>[0];

  constructor(parts: {
    server: ApiServer;
    clock: Clock;
    random: Random;
    http: HttpSender;
    environmentId: string;
    fate: (pod: Pod) => ContainerFate;
    /** How long scheduling and pulling take. */
    prepareMs?: (pod: Pod) => number;
    /** Called when a container starts. */
    onStart?: (running: Running) => void;
    /** Called when a waiting container gets a line that an operator must never send. */
    onWrongLine?: (pod: string, error: Error) => void;
  }) {
    parts.server.kubelet = this;
    this.#parts = parts;
    this.#server = parts.server;
    this.#clock = parts.clock;
    this.#random = parts.random;
    parts.server.subscribe(({ plural, type, object }) => {
      if (plural === "pods") this.#podChanged(type, object as Pod);
      if (plural === "environments" && type === "DELETED") this.#collect();
      if (plural === "pods" && type === "ADDED" && this.#isOrphan(object as Pod)) this.#collect();
    });
  }

  /** Loses the node: the Pod object is deleted and the container runs on. */
  lose(name: string, namespace: string): void {
    this.#pods.get(name)?.lose();
    this.#pods.delete(name);
    this.#server.removePod(namespace, name);
  }

  attach({ metadata: { name = "" } }: Pod, container: string): RunningContainer {
    const running = this.#pods.get(name)?.attached;
    if (!running) throw refusal(500, "InternalError", `container ${container} not found in pod ${name}`);
    return running;
  }

  async log({ metadata: { name = "" } }: Pod, container: string): Promise<string> {
    const log = await this.#pods.get(name)?.log();
    if (log !== undefined) return log;
    throw refusal(400, "BadRequest", `container "${container}" in pod "${name}" is waiting to start`);
  }

  /** Kills the container from outside. */
  kill(name: string): void {
    this.#pods.get(name)?.kill();
  }

  #podChanged(type: string, pod: Pod): void {
    const name = pod.metadata.name ?? "";
    if (type === "DELETED") {
      this.#pods.get(name)?.objectGone();
      this.#pods.delete(name);
      return;
    }
    const known = this.#pods.get(name);
    if (known) known.changed(pod);
    else if (type === "ADDED") this.#pods.set(name, new KubeletPod(pod, { ...this.#parts, node: this }));
  }

  /** The garbage collector deletes Pods whose owner is gone, including Pods created later. */
  #collect(): void {
    this.#clock.setTimer(
      () => {
        for (const pod of this.#server.list(PODS)) {
          const { namespace = "", name = "" } = pod.metadata;
          if (this.#isOrphan(pod)) this.#server.delete(PODS, namespace, name, {});
        }
      },
      100 + this.#random() * 5_000,
    );
  }

  #isOrphan(pod: Pod): boolean {
    const owner = pod.metadata.ownerReferences?.[0];
    const live = this.#server.find(ENVIRONMENTS, pod.metadata.namespace ?? "", owner?.name ?? "");
    return owner !== undefined && live?.metadata.uid !== owner.uid;
  }
}

class KubeletPod {
  readonly #parts: ConstructorParameters<typeof Node>[0] & { node: Node };
  readonly #namespace: string;
  readonly #name: string;
  #pod: Pod;
  /** `parked` waits for a key, and `waiting` for a line. */
  #state: "new" | "parked" | "waiting" | "failed-start" | "running" | "ended" = "new";
  #waiting: WaitingContainer | null = null;
  readonly #over = Promise.withResolvers<void>();
  #startedAt = "";
  #killed = new AbortController();
  #worker: Worker | null = null;
  #deleting = false;
  #forgotten = false;
  #isLost = false;
  #look: Timer | null = null;
  #deadline: Timer | null = null;

  constructor(pod: Pod, parts: ConstructorParameters<typeof Node>[0] & { node: Node }) {
    this.#parts = parts;
    this.#pod = pod;
    this.#namespace = pod.metadata.namespace ?? "";
    this.#name = pod.metadata.name ?? "";
    const prepareMs = parts.prepareMs?.(pod) ?? 200 + parts.random() * 2_000;
    this.#after(prepareMs / 2, () => this.#bind());
    this.#after(prepareMs, () => this.#park());
  }

  changed(pod: Pod): void {
    const before = this.#pod;
    this.#pod = pod;
    if (pod.metadata.deletionTimestamp && !this.#deleting) this.#delete();
    const touched =
      JSON.stringify([before.metadata.labels, before.metadata.annotations]) !==
      JSON.stringify([pod.metadata.labels, pod.metadata.annotations]);
    if (touched) this.#after(10 + this.#parts.random() * 100, () => this.#lookNow());
    if (before.spec.activeDeadlineSeconds !== pod.spec.activeDeadlineSeconds) this.#armDeadline();
  }

  objectGone(): void {
    this.#forgotten = true;
    this.#look?.cancel();
    this.#deadline?.cancel();
    this.#after(50, () => this.#kill(), true);
  }

  /** The Pod is out of reach, and its container runs until the machine ends. */
  lose(): void {
    this.#forgotten = true;
    this.#look?.cancel();
    this.#deadline?.cancel();
    this.#isLost = true;
    this.#after(LOST_NODE_ENDS_MS, () => this.#kill(), true);
  }

  kill(): void {
    if (this.#state === "running" || this.#state === "waiting") this.#kill();
  }

  /** The streams of the container while it runs. A lost node hears and says nothing. */
  get attached(): RunningContainer | null {
    const streams = this.#waiting?.streams;
    if (!streams || (this.#state !== "waiting" && this.#state !== "running")) return null;
    return {
      write: (text) => {
        if (!this.#isLost) streams.write(Buffer.from(text));
      },
      follow: (fn) =>
        streams.follow((bytes) => {
          if (!this.#isLost) fn(bytes.toString());
        }),
      ended: this.#over.promise,
    };
  }

  /** The container's log; undefined before it started. */
  async log(): Promise<string | undefined> {
    return (await this.#waiting?.streams.log())?.toString();
  }

  #kill(): void {
    this.#killed.abort();
    this.#waiting?.signal("SIGKILL");
  }

  #bind(): void {
    if (this.#forgotten || this.#deleting) return;
    const pod = this.#parts.server.find(PODS, this.#namespace, this.#name);
    if (!pod) return;
    // The binding is the only change of a Pod's spec that is not a patch.
    pod.spec.nodeName = NODE;
    this.#report({ phase: "Pending", startTime: this.#now(), conditions: [condition("PodScheduled", this.#now())] });
  }

  #park(): void {
    if (this.#forgotten || this.#deleting) return;
    const [container] = this.#pod.spec.containers;
    const parking = container && parkingOf(this.#pod, container);
    if (parking) {
      this.#wait(parking);
      return;
    }
    this.#state = "parked";
    this.#lookNow();
  }

  /** Starts a container that waits for its line. What it is drawn to do is drawn when the line arrives. */
  #wait(parking: Parking): void {
    const { clock, random, fate, onWrongLine } = this.#parts;
    const [container = { name: "" }] = this.#pod.spec.containers;
    let drawn: ContainerFate | undefined;
    const request: StartRequest = {
      ...{ pod: this.#pod, container, fate: undefined, runsToCompletion: false, restartCount: 0 },
      ...{ env: environmentOf(this.#pod), latency: new Latency(random), evict: () => {} },
      fateNow: () => {
        drawn = fate(this.#pod);
        return drawn.startError ? START_ERROR : undefined;
      },
      onFault: (error) => onWrongLine?.(this.#name, error),
      onExit: ({ exitCode }) => this.#ended(exitCode),
    };
    this.#state = "waiting";
    this.#startedAt = this.#now();
    this.#waiting = new WaitingContainer(clock, parking, request, ({ env, files = {} }) => {
      const secret = env["ANTHROPIC_WORK_SECRET"] ?? files[env["ANTHROPIC_WORK_SECRET_FILE"] ?? ""];
      if (drawn) this.#run(drawn, env["ANTHROPIC_WORK_ID"] ?? "", secret ?? env["ANTHROPIC_ENVIRONMENT_KEY"] ?? "");
      // This Pod signals its worker itself.
      return { signal: () => {} };
    });
    this.#container({ running: { startedAt: this.#startedAt } });
  }

  #lookNow(): void {
    if (this.#state !== "parked" || this.#forgotten || this.#deleting) return;
    this.#look?.cancel();
    const [leastMs, spreadMs] = LOOK_MS;
    this.#look = this.#after(leastMs + this.#parts.random() * spreadMs, () => this.#lookNow());
    const secret = this.#parts.server.find(SECRETS, this.#namespace, this.#name);
    const key = secret?.data?.[KEY_WORK_SECRET];
    // The kubelet's watches of Secrets and Pods are not ordered: it may not have the key yet.
    const unseen = key === undefined || this.#parts.random() < UNSEEN;
    if (key === undefined || unseen) {
      const missing = secret
        ? `couldn't find key ${KEY_WORK_SECRET} in Secret ${this.#namespace}/${this.#name}`
        : `secret "${this.#name}" not found`;
      this.#container({ waiting: { reason: "CreateContainerConfigError", message: missing } });
      return;
    }
    const fate = this.#parts.fate(this.#pod);
    if (fate.startError) {
      this.#state = "failed-start";
      this.#container({ waiting: { reason: "CreateContainerError", message: "no such command" } });
      return;
    }
    this.#startedAt = this.#now();
    this.#container({ running: { startedAt: this.#startedAt } });
    this.#run(fate, text(secret?.data?.[KEY_WORK_ID]), text(key));
  }

  #run(fate: ContainerFate, workId: string, secret: string): void {
    const { clock, http, environmentId, node, onStart } = this.#parts;
    this.#state = "running";
    this.#worker = new Worker(clock, http, { baseUrl: baseUrlOf(this.#pod), environmentId, workId, secret });
    const running = { pod: this.#name, workId, worker: this.#worker };
    node.running.add(running);
    onStart?.(running);
    const killed = new Promise<number>((resolve) =>
      this.#killed.signal.addEventListener("abort", () => resolve(137), { once: true }),
    );
    void Promise.race([this.#worker.run(fate.program, fate.servesMs, this.#killed.signal), killed]).then((exitCode) => {
      node.running.delete(running);
      this.#killed.abort();
      this.#ended(exitCode);
    });
  }

  #ended(exitCode: number): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#over.resolve();
    const terminated = {
      exitCode,
      reason: exitCode === 0 ? "Completed" : "Error",
      startedAt: this.#startedAt,
      finishedAt: this.#now(),
    };
    this.#after(100 + this.#parts.random() * 800, () => this.#container({ terminated }));
    this.#after(1_500, () => {
      this.#container({ terminated }, exitCode === 0 ? "Succeeded" : "Failed");
      if (this.#deleting) this.#after(300, () => this.#parts.server.removePod(this.#namespace, this.#name));
    });
  }

  #delete(): void {
    this.#deleting = true;
    this.#look?.cancel();
    if (this.#state === "ended") {
      this.#after(300 + this.#parts.random() * 1_500, () => this.#parts.server.removePod(this.#namespace, this.#name));
      return;
    }
    if (this.#state === "waiting") {
      this.#waiting?.signal("SIGTERM");
      return;
    }
    if (this.#state !== "running") {
      this.#after(10 + this.#parts.random() * 900, () => this.#parts.server.removePod(this.#namespace, this.#name));
      return;
    }
    this.#worker?.terminate();
    this.#after((this.#pod.metadata.deletionGracePeriodSeconds ?? 0) * SECOND_MS, () => this.#kill());
  }

  #armDeadline(): void {
    this.#deadline?.cancel();
    const seconds = this.#pod.spec.activeDeadlineSeconds;
    const startedMs = Date.parse(this.#pod.status?.startTime ?? "");
    if (seconds === undefined || Number.isNaN(startedMs)) return;
    const leftMs = startedMs + seconds * SECOND_MS - this.#parts.clock.now();
    if (leftMs > 2 ** 31) return;
    this.#deadline = this.#after(Math.max(0, leftMs), () => this.#kill());
  }

  #container(state: ContainerState, phase = state.running ? "Running" : "Pending"): void {
    const name = this.#pod.spec.containers[0]?.name ?? "";
    const types = ["PodScheduled", "Initialized", "PodReadyToStartContainers"];
    const conditions = types.map((type) => condition(type, this.#pod.status?.startTime ?? this.#now()));
    this.#report({ ...this.#pod.status, phase, conditions, containerStatuses: [{ name, state }] });
  }

  #report(status: Pod["status"]): void {
    if (this.#forgotten || !this.#parts.server.find(PODS, this.#namespace, this.#name)) return;
    this.#parts.server.patch(PODS, this.#namespace, this.#name, { status }, true);
  }

  #after(ms: number, fn: () => void, always = false): Timer {
    return this.#parts.clock.setTimer(() => {
      if (always || !this.#forgotten) fn();
    }, ms);
  }

  #now(): string {
    return new Date(this.#parts.clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  }
}

/** How long an unreachable node runs before it shuts down. */
const LOST_NODE_ENDS_MS = 600_000;

/** The minimum time between two reads of the Secret, and the random addition. */
const LOOK_MS = [10_000, 5_000] as const;

/** The probability that the kubelet reads an outdated Secret. */
const UNSEEN = 0.15;

function condition(type: string, at: string): Condition {
  return { type, status: "True", lastTransitionTime: at };
}

function text(data: string | undefined): string {
  return Buffer.from(data ?? "", "base64").toString("utf8");
}

/** The address of the Work API for the program in this Pod. */
function baseUrlOf(pod: Pod): string {
  return environmentOf(pod)["ANTHROPIC_BASE_URL"] ?? BASE_URL;
}

/** The variables of the session container whose values the Pod contains. */
function environmentOf({ spec: { containers } }: Pod): Record<string, string> {
  const env = containers.flatMap((container) => container.env ?? []);
  return Object.fromEntries(env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
}

/** The command is not in the image. */
const START_ERROR: Fate = parseFate({ kind: "start-error" });
