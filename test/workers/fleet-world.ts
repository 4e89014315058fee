import type { Environment } from "../../src/api/environment.ts";
import { sleep } from "../../src/core/clock.ts";
import { hashOf } from "../../src/core/json.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { Deployment, KubeObject, Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import type { OwnPollers } from "../../src/queue/pollers.ts";
import type { Precedence } from "../../src/queue/precedence.ts";
import { WorkersRuntime } from "../../src/workers/runtime.ts";
import { workerTemplate } from "../../src/workers/template.ts";
import { type Json, parsed, stored, workersSpec } from "../api/environments.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** The time step of the world. */
const TICK_MS = 250;
/** From a worker's last answer to the ReplicaSet's choice, including all requests and the controller's turn. */
const WINDOW_MS = 2_500;
const NEVER = Number.POSITIVE_INFINITY;
const NEVER_YET = Number.NEGATIVE_INFINITY;
const EXIT_SIGKILL = 137;
/** Longer than the caches lag. */
const EXIT_SHOWS_MS = 2_000;
const COST = "controller.kubernetes.io/pod-deletion-cost";

/** What fails while it is set; shares of requests, 0 to 1. */
export interface Weather {
  stats: number;
  list: number;
  kube: number;
  probe: number;
}

interface Worker {
  pod: Pod;
  readonly startsAtMs: number;
  pollsAtMs: number;
  busySinceMs: number | null;
  busyUntilMs: number;
  /** When it was told to end. */
  toldAtMs: number;
  /** When its program ends after that. */
  endsAtMs: number;
  /** The time in which it is not Ready. */
  isUnreadyFromMs: number;
  isUnreadyUntilMs: number;
}

/**
 * Always-on workers of one Environment, on a cluster and a Work API in memory. A ReplicaSet controller ranks Pods like
 * the real one, workers poll and are busy for random times, caches lag, and requests fail. A worker that is told to end
 * finishes its session first. The world checks that no scale-down of the operator ends a worker that has been busy,
 * whether Ready or not, for longer than the window, and that the operator adds none beyond the maximum.
 */
export class FleetWorld {
  readonly clock = new VirtualClock();
  readonly metrics = createMetrics();
  readonly faults: string[] = [];
  readonly weather: Weather = { stats: 0, list: 0, kube: 0, probe: 0 };
  /** The API server's error for every write of a Deployment; null: writes succeed. */
  refusal: KubeApiError | null = null;
  served = 0;
  /** Sessions whose worker was killed at the end of its grace period. */
  lost = 0;
  /** How long a session keeps its worker busy. */
  sessionMs = { min: 2_000, max: 42_000 };
  /** The number of list reads. */
  walks = 0;
  environment: Environment;
  precedence: Precedence = { isServed: true, mayClaim: true, verdict: null };
  /** Called while the finalizer is added. */
  whileHeld: () => void = () => {};
  #queued = 0;
  #names = 0;
  #versions = 0;
  #deployments = new Map<string, Deployment>();
  #workers = new Map<string, Worker>();
  #shown: { pods: Pod[]; deployments: Deployment[] } = { pods: [], deployments: [] };
  #random: () => number;
  #runtime: WorkersRuntime | null = null;
  #statsMs = Number.NEGATIVE_INFINITY;
  #listMs = Number.NEGATIVE_INFINITY;
  /** Until this time, others than the operator are responsible for workers that end. */
  #excusedUntilMs = Number.NEGATIVE_INFINITY;
  /** From this time on, the operator must end busy workers, too. */
  #drainsAtMs = NEVER;
  readonly #workers_: Json;
  #own: () => OwnPollers = () => ({ most: 0, shouldPoll: false });

  constructor(random: () => number, workers: Json) {
    this.#random = random;
    this.#workers_ = workers;
    this.environment = parsed(stored(workersSpec(workers)));
  }

  /** Whether the operator expects a worker to poll. */
  get shouldPoll(): boolean {
    return this.#own().shouldPoll;
  }

  // --- events -------------------------------------------------------------------------------------------------------

  enqueue(count: number): void {
    this.#queued += count;
  }

  changeTemplate(): void {
    const spec = {
      ...this.#workers_,
      template: {
        metadata: { labels: { v: String(this.#names) } },
        spec: { containers: [{ name: "worker", image: `w:${this.#versions}` }] },
      },
    };
    this.#respec(spec, this.environment.spec.paused);
  }

  pause(paused: boolean): void {
    this.environment = { ...this.environment, spec: { ...this.environment.spec, paused } };
    this.#update();
  }

  /** Another Environment of the queue begins to be served, or waits for this one's workers to end, or is gone. */
  sets(precedence: Pick<Precedence, "isServed" | "mayClaim">): void {
    this.precedence = { ...precedence, verdict: null };
    this.#update();
  }

  /** Scales as another client, which is then responsible for workers that end. */
  scaleByHand(replicas: number): void {
    const [deployment] = this.#deployments.values();
    if (!deployment) return;
    this.#excusedUntilMs = this.clock.monotonic() + WINDOW_MS;
    this.#store({ ...deployment, spec: { ...deployment.spec, replicas } });
  }

  /** A worker's program exits and is restarted; its item returns to the queue. */
  crash(): void {
    const worker = this.#any((each) => each.pod.status?.phase === "Running");
    if (!worker) return;
    if (worker.busySinceMs !== null) this.#queued += 1;
    worker.busySinceMs = null;
    const restarts = (worker.pod.status?.containerStatuses?.[0]?.restartCount ?? 0) + 1;
    worker.pod = withStatus(worker.pod, { restarts, ready: true });
  }

  /** The node evicts a worker: its Pod fails but remains, and its item returns to the queue. */
  evict(): void {
    const worker = this.#any((each) => each.pod.status?.phase === "Running");
    if (!worker) return;
    if (worker.busySinceMs !== null) this.#queued += 1;
    worker.busySinceMs = null;
    const { pod } = worker;
    const containerStatuses = [{ name: "worker", state: { terminated: { exitCode: 143 } }, restartCount: 0 }];
    worker.pod = { ...pod, status: { ...pod.status, phase: "Failed", conditions: [], containerStatuses } };
  }

  /** Another client deletes the Pod of a busy worker. */
  deleteBusy(): void {
    const worker = this.#any(({ busySinceMs }) => busySinceMs !== null);
    if (worker) this.#tell(worker, this.clock.monotonic());
  }

  /** A worker fails its readiness probe for a while. */
  makeUnready(): void {
    const worker = this.#any(({ busySinceMs }) => busySinceMs !== null);
    if (!worker) return;
    const nowMs = this.clock.monotonic();
    if (nowMs >= worker.isUnreadyUntilMs) worker.isUnreadyFromMs = nowMs;
    worker.isUnreadyUntilMs = nowMs + 20_000;
  }

  /** The operator's process is killed, and another one starts. */
  async restart(): Promise<void> {
    const ending = this.#runtime?.stop();
    this.#runtime = null;
    await this.clock.advance(TICK_MS);
    await ending;
    this.start();
  }

  start(): void {
    const runtime = new WorkersRuntime({
      context: {
        namespace: "agents",
        name: "research",
        uid: this.environment.metadata.uid,
        environment: () => this.environment,
        precedence: () => this.precedence,
        template: () => workerTemplate(this.environment),
        podPolicy: {},
        kube: this.#kube() as unknown as KubeClient,
        pods: {
          get: (name) => this.#shown.pods.find(({ metadata }) => metadata.name === name),
          list: () => this.#shown.pods,
        },
        deployments: { get: () => undefined, list: () => this.#shown.deployments },
        synced: Promise.resolve(),
        problem: () => null,
        announce: () => {},
        points: NO_POINTS,
        clock: this.clock,
        random: this.#random,
        timing: DEFAULT_TIMING,
        logger: silentLogger,
        metrics: this.metrics,
        labels: { namespace: "agents", environment: "research" },
      },
      sources: (changed, own) => {
        this.#own = own;
        return this.#sources(changed);
      },
      hold: {
        mayBeHeld: false,
        hold: async () => {
          this.whileHeld();
          return true;
        },
        release: async () => {},
      },
      prober: async ({ ip }) => {
        await sleep(this.clock, 5 + this.#random() * 45);
        const worker = [...this.#workers.values()].find(({ pod }) => pod.status?.podIP === ip);
        if (!worker || this.#random() < this.weather.probe) return "unknown";
        return worker.busySinceMs === null ? "idle" : "busy";
      },
      onChange: () => {},
    });
    runtime.start();
    this.#runtime = runtime;
    this.#update();
  }

  /** The Environment is being deleted. */
  drain(graceMs: number): void {
    this.#drainsAtMs = this.clock.monotonic() + graceMs;
    this.#runtime?.drain(this.#drainsAtMs);
  }

  async run(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += TICK_MS) {
      this.#tick();
      await this.clock.advance(TICK_MS);
    }
  }

  async stop(): Promise<void> {
    const ending = this.#runtime?.stop();
    await this.clock.advance(5_000);
    await ending;
  }

  // --- state --------------------------------------------------------------------------------------------------------

  get queued(): number {
    return this.#queued;
  }

  get busy(): number {
    return [...this.#workers.values()].filter(({ busySinceMs }) => busySinceMs !== null).length;
  }

  get replicas(): Record<string, number> {
    return Object.fromEntries([...this.#deployments].map(([name, { spec }]) => [name, spec.replicas ?? 0]));
  }

  /** The number of worker Pods, without failed ones. */
  get pods(): number {
    return [...this.#workers.values()].filter(({ pod }) => !hasFailed(pod)).length;
  }

  get isDrained(): boolean {
    return this.#runtime?.isDrained === true;
  }

  get verdicts() {
    return this.#runtime?.report().verdicts.map(({ reason }) => reason) ?? [];
  }

  /** The message of a verdict with this reason; undefined: there is none. */
  saidOf(reason: string): string | undefined {
    return this.#runtime?.report().verdicts.find((verdict) => verdict.reason === reason)?.message;
  }

  // --- internals ----------------------------------------------------------------------------------------------------

  #respec(workers: Json, paused: boolean): void {
    this.environment = parsed(stored(workersSpec(workers, { paused })));
    this.#update();
  }

  #update(): void {
    this.#runtime?.update({ mayAsk: true, mayPrepare: true });
  }

  #any(choose: (worker: Worker) => boolean): Worker | undefined {
    return [...this.#workers.values()]
      .filter((worker) => worker.pod.metadata.deletionTimestamp === undefined)
      .find(choose);
  }

  #tick(): void {
    const nowMs = this.clock.monotonic();
    for (const worker of this.#workers.values()) this.#live(worker, nowMs);
    for (const deployment of this.#deployments.values()) this.#reconcile(deployment, nowMs);
    for (const [name, { metadata }] of this.#deployments) {
      const isEmpty = ![...this.#workers.values()].some(({ pod }) => ownerOf(pod) === name);
      if (metadata.deletionTimestamp && isEmpty) this.#deployments.delete(name);
    }
    // The caches show an older state, and sometimes a much older one.
    if (this.#random() < 0.7) {
      const next = {
        pods: [...this.#workers.values()].map(({ pod }) => pod),
        deployments: [...this.#deployments.values()],
      };
      const isChanged = hashOf(next) !== hashOf(this.#shown);
      this.#shown = next;
      if (isChanged) this.#runtime?.podChanged("");
    }
  }

  #live(worker: Worker, nowMs: number): void {
    const { pod } = worker;
    const name = pod.metadata.name ?? "";
    if (pod.metadata.deletionTimestamp !== undefined) {
      // The kubelet writes how the program ended, which every watch shows, and then removes the Pod.
      if (hasExited(pod)) {
        if (nowMs >= worker.endsAtMs + EXIT_SHOWS_MS) this.#workers.delete(name);
      } else if (nowMs >= worker.endsAtMs) worker.pod = exited(pod, this.#endSession(worker, nowMs));
      return;
    }
    if (nowMs < worker.startsAtMs || hasFailed(pod)) return;
    const restarts = pod.status?.containerStatuses?.[0]?.restartCount ?? 0;
    const ready = nowMs >= worker.isUnreadyUntilMs;
    if (pod.status?.phase !== "Running" || isReady(pod) !== ready) worker.pod = withStatus(pod, { restarts, ready });
    if (worker.busySinceMs !== null && nowMs >= worker.busyUntilMs) {
      worker.busySinceMs = null;
      worker.pollsAtMs = nowMs;
      this.served += 1;
    }
    if (worker.busySinceMs !== null || nowMs < worker.pollsAtMs) return;
    worker.pollsAtMs = nowMs + 1_000 + this.#random() * 2_000;
    if (this.#queued === 0) return;
    this.#queued -= 1;
    worker.busySinceMs = nowMs;
    const { min, max } = this.sessionMs;
    worker.busyUntilMs = nowMs + min + this.#random() * (max - min);
  }

  /** A worker that was told to end exits now. Returns its exit code. */
  #endSession(worker: Worker, nowMs: number): number {
    if (worker.busySinceMs === null) return 0;
    worker.busySinceMs = null;
    if (nowMs >= worker.busyUntilMs) {
      this.served += 1;
      return 0;
    }
    this.lost += 1;
    this.#queued += 1;
    return EXIT_SIGKILL;
  }

  /**
   * The ReplicaSet controller: creates missing Pods and ends surplus ones in the real controller's order. It ignores
   * failed Pods, which the garbage collector deletes with the Deployment.
   */
  #reconcile(deployment: Deployment, nowMs: number): void {
    const name = deployment.metadata.name ?? "";
    const replicas = deployment.metadata.deletionTimestamp ? 0 : (deployment.spec.replicas ?? 0);
    const own = [...this.#workers.values()].filter(({ pod }) => ownerOf(pod) === name);
    if (deployment.metadata.deletionTimestamp) {
      for (const { pod } of own) if (hasFailed(pod)) this.#workers.delete(pod.metadata.name ?? "");
    }
    const active = own.filter(({ pod }) => pod.metadata.deletionTimestamp === undefined && !hasFailed(pod));
    for (let missing = replicas - active.length; missing > 0; missing -= 1) this.#make(deployment, nowMs);
    const victims = active.toSorted(byRank).slice(0, Math.max(0, active.length - replicas));
    for (const worker of victims) this.#endWorker(worker, nowMs);
  }

  #endWorker(worker: Worker, nowMs: number): void {
    const { pod, busySinceMs, isUnreadyFromMs } = worker;
    // A Pod that is not Ready ends first, whatever its mark says: one that became unready after the last check is no
    // fault of the operator.
    const seemedSafe = busySinceMs === null ? nowMs : Math.max(busySinceMs, isReady(pod) ? NEVER_YET : isUnreadyFromMs);
    if (nowMs - seemedSafe > WINDOW_MS && nowMs > this.#excusedUntilMs && nowMs < this.#drainsAtMs) {
      this.faults.push(`${pod.metadata.name} was ended at ${nowMs}, busy since ${busySinceMs}`);
    }
    this.#tell(worker, nowMs);
  }

  /** The Pod is deleted: its worker finishes its session within the grace period, or ends at once. */
  #tell(worker: Worker, nowMs: number): void {
    const { pod } = worker;
    const grace = Number(pod.spec.terminationGracePeriodSeconds);
    const deletion = { deletionTimestamp: "2030-01-01T00:00:00Z", deletionGracePeriodSeconds: grace };
    worker.pod = { ...pod, metadata: { ...pod.metadata, ...deletion } };
    worker.toldAtMs = nowMs;
    worker.endsAtMs =
      worker.busySinceMs === null
        ? nowMs + 500 + this.#random() * 1_000
        : Math.min(worker.busyUntilMs, nowMs + grace * 1_000);
  }

  /** The operator deletes a Pod that is being deleted again, with a shorter grace period. */
  #hurry(name: string, graceSeconds: number): void {
    const worker = this.#workers.get(name);
    if (!worker) throw new KubeApiError("gone", { status: 404, reason: "NotFound" });
    const { metadata } = worker.pod;
    if (metadata.deletionTimestamp === undefined) this.faults.push(`the operator deleted ${name} itself`);
    if (graceSeconds >= (metadata.deletionGracePeriodSeconds ?? 0)) return;
    worker.pod = { ...worker.pod, metadata: { ...metadata, deletionGracePeriodSeconds: graceSeconds } };
    worker.endsAtMs = Math.min(worker.endsAtMs, this.clock.monotonic() + graceSeconds * 1_000);
  }

  #make(deployment: Deployment, nowMs: number): void {
    this.#names += 1;
    const name = `${deployment.metadata.name}-${this.#names}`;
    const pod: Pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        ...deployment.spec.template.metadata,
        name,
        namespace: "agents",
        uid: `uid-${this.#names}`,
        creationTimestamp: new Date(this.clock.now()).toISOString(),
      },
      spec: deployment.spec.template.spec,
      status: { phase: "Pending", podIP: `10.0.${Math.floor(this.#names / 250)}.${this.#names % 250}` },
    };
    this.#workers.set(name, {
      pod,
      startsAtMs: nowMs + 1_000 + this.#random() * 4_000,
      pollsAtMs: 0,
      busySinceMs: null,
      busyUntilMs: NEVER,
      toldAtMs: NEVER,
      endsAtMs: NEVER,
      isUnreadyFromMs: NEVER_YET,
      isUnreadyUntilMs: 0,
    });
  }

  #store(deployment: Deployment): Deployment {
    this.#versions += 1;
    const before = this.#deployments.get(deployment.metadata.name ?? "");
    const isSame = before && hashOf(before.spec) === hashOf(deployment.spec);
    const generation = (before?.metadata.generation ?? 0) + (isSame ? 0 : 1);
    const metadata = { ...deployment.metadata, uid: before?.metadata.uid ?? `uid-d${this.#versions}`, generation };
    const next = {
      ...deployment,
      metadata: { creationTimestamp: new Date(this.clock.now()).toISOString(), ...metadata },
    };
    this.#deployments.set(deployment.metadata.name ?? "", next);
    return next;
  }

  #kube() {
    const request = async <T>(act: () => T): Promise<T> => {
      await sleep(this.clock, 5 + this.#random() * 95);
      const isLost = this.#random() < this.weather.kube;
      // Half of the failed requests take effect nevertheless.
      if (isLost && this.#random() < 0.5) throw new KubeApiError("no answer", { status: 0 });
      const result = act();
      if (isLost) throw new KubeApiError("no answer", { status: 0, maybeApplied: true });
      return result;
    };
    return {
      now: () => this.clock.now(),
      create: (_resource: unknown, object: Deployment) =>
        request(() => {
          const name = object.metadata.name ?? "";
          if (this.#deployments.has(name)) throw new KubeApiError("exists", { status: 409, reason: "AlreadyExists" });
          return this.#checked(() => this.#store(object));
        }),
      listAll: (_resource: unknown, { labelSelector }: { labelSelector: string }) =>
        request(() => {
          const hash = labelSelector.split("=").at(-1);
          const pods = [...this.#workers.values()].map(({ pod }) => pod);
          return { items: pods.filter(({ metadata }) => metadata.labels?.["berth.dev/template-hash"] === hash) };
        }),
      patch: (resource: { plural: string }, { name }: { name: string }, patch: unknown) =>
        request(() =>
          resource.plural === "pods" ? this.#mark(name, patch) : this.#checked(() => this.#apply(name, patch)),
        ),
      delete: (
        { plural }: { plural: string },
        { name }: { name: string },
        { gracePeriodSeconds = NEVER }: { gracePeriodSeconds?: number },
      ) =>
        request(() => {
          if (plural === "pods") return this.#hurry(name, gracePeriodSeconds);
          const found = this.#deployments.get(name);
          if (!found) throw new KubeApiError("gone", { status: 404, reason: "NotFound" });
          const metadata = { ...found.metadata, deletionTimestamp: "2030-01-01T00:00:00Z" };
          this.#deployments.set(name, { ...found, metadata });
        }),
    };
  }

  /** Checks that no write of the operator exceeds the maximum, unless there were more workers before. */
  #checked<T>(write: () => T): T {
    if (this.refusal) throw this.refusal;
    const total = () => Object.values(this.replicas).reduce((sum, each) => sum + each, 0);
    const before = total();
    const result = write();
    const max = this.environment.spec.workers?.maxReplicas ?? 0;
    const isExcused = this.clock.monotonic() <= this.#excusedUntilMs;
    if (!isExcused && total() > Math.max(max, before))
      this.faults.push(`${total()} workers planned, at most ${max} are allowed`);
    const nowMs = this.clock.monotonic();
    const isKnownToEnd = ({ pod, toldAtMs }: Worker) =>
      nowMs - toldAtMs > WINDOW_MS && isReady(pod) && !hasFailed(pod) && !hasExited(pod);
    const ending = [...this.#workers.values()].filter(isKnownToEnd).length;
    if (total() > before && total() + ending > max)
      this.faults.push(`${total()} workers planned beside ${ending} that end, at most ${max} are allowed`);
    return result;
  }

  #mark(name: string, patch: unknown): KubeObject {
    const worker = this.#workers.get(name);
    if (!worker) throw new KubeApiError("gone", { status: 404, reason: "NotFound" });
    const { annotations } = (patch as { metadata: { annotations: Record<string, string | null> } }).metadata;
    const merged = Object.entries({ ...worker.pod.metadata.annotations, ...annotations });
    const kept = Object.fromEntries(merged.filter((entry): entry is [string, string] => entry[1] !== null));
    worker.pod = { ...worker.pod, metadata: { ...worker.pod.metadata, annotations: kept } };
    return worker.pod;
  }

  #apply(name: string, patch: unknown): Deployment {
    const found = this.#deployments.get(name);
    if (!found) throw new KubeApiError("gone", { status: 404, reason: "NotFound" });
    const spec = { ...found.spec };
    for (const { op, path, value } of patch as { op: string; path: string; value: unknown }[]) {
      const field = path.split("/").at(-1) ?? "";
      const now = path.startsWith("/metadata") ? found.metadata.uid : found.spec[field];
      if (op === "test" && now !== value) throw new KubeApiError("test failed", { status: 422, reason: "Invalid" });
      if (op === "replace") spec[field] = value;
    }
    this.#noteScale(found.spec.replicas ?? 0, spec.replicas ?? 0);
    return this.#store({ ...found, spec });
  }

  /** Checks that workers are removed for lack of work only by fresh readings. */
  #noteScale(from: number, to: number): void {
    const { deploymentName } = workerTemplate(this.environment);
    const isHandingOver = [...this.#deployments.keys()].some((name) => name !== deploymentName);
    if (to >= from || isHandingOver || this.environment.spec.paused) return;
    const oldestMs = Math.min(this.#statsMs, this.#listMs);
    if (this.clock.monotonic() - oldestMs > 10_000) this.faults.push(`scaled from ${from} to ${to} by old readings`);
  }

  #sources(changed: () => void) {
    const { clock } = this;
    const health = {
      key: { reason: "KeyAccepted", message: "" } as const,
      queue: { reason: "Reachable", message: "" } as const,
      keyRejected: false,
      retryKey: () => false,
      keyChanged: () => {},
    };
    const answer = async (share: number) => {
      await sleep(clock, 20 + this.#random() * 180);
      return this.#random() >= share;
    };
    const queue = {
      stats: null as { depth: number; pending: number } | null,
      readMs: Number.NEGATIVE_INFINITY,
      status: null,
      pollers: { reason: "PollersExpected", message: "" } as const,
      nudge: () => {},
      look: () => {},
      refresh: async (): Promise<boolean> => {
        const readMs = clock.monotonic();
        const depth = this.#queued;
        if (!(await answer(this.weather.stats))) return false;
        queue.stats = { depth, pending: 0 };
        queue.readMs = readMs;
        this.#statsMs = readMs;
        changed();
        return true;
      },
      run: async (signal: AbortSignal): Promise<void> => {
        while (!signal.aborted) {
          await queue.refresh();
          await sleep(clock, this.#queued > 0 ? 2_000 : 10_000, signal);
        }
      },
    };
    const count = async () => {
      const readMs = clock.monotonic();
      const running = this.busy;
      this.walks += 1;
      if (!(await answer(this.weather.list))) return { ok: false as const, waitMs: 1_000 };
      this.#listMs = readMs;
      return { ok: true as const, count: running, isComplete: true, pages: 1 };
    };
    return { health, queue, count };
  }
}

function ownerOf({ metadata }: Pod): string {
  return (metadata.name ?? "").replace(/-\d+$/, "");
}

function hasFailed({ status }: Pod): boolean {
  return status?.phase === "Failed";
}

function hasExited({ status }: Pod): boolean {
  return status?.containerStatuses?.[0]?.state?.terminated !== undefined;
}

function exited(pod: Pod, exitCode: number): Pod {
  const containerStatuses = [{ name: "worker", state: { terminated: { exitCode } }, restartCount: 0 }];
  return { ...pod, status: { ...pod.status, conditions: [], containerStatuses } };
}

function isReady({ status }: Pod): boolean {
  return status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True") === true;
}

function withStatus(pod: Pod, { restarts, ready }: { restarts: number; ready: boolean }): Pod {
  return {
    ...pod,
    status: {
      ...pod.status,
      phase: "Running",
      conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
      containerStatuses: [{ name: "worker", state: { running: {} }, restartCount: restarts }],
    },
  };
}

/** ActivePodsWithRanks of the controller: the first Pod ends first. */
function byRank({ pod: a }: Worker, { pod: b }: Worker): number {
  const phase = (pod: Pod) => (pod.status?.phase === "Pending" ? 0 : 2);
  if (phase(a) !== phase(b)) return phase(a) - phase(b);
  if (isReady(a) !== isReady(b)) return isReady(a) ? 1 : -1;
  const cost = (pod: Pod) => Number(pod.metadata.annotations?.[COST] ?? 0);
  if (cost(a) !== cost(b)) return cost(a) - cost(b);
  // The younger Pod first.
  return (a.metadata.creationTimestamp ?? "") < (b.metadata.creationTimestamp ?? "") ? 1 : -1;
}
