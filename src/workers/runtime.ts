import type { Verdict } from "../api/conditions.ts";
import type { QueueStatus, WorkersStatus } from "../api/environment.ts";
import type { Permissions, RuntimeReport } from "../api/runtime.ts";
import { areAllIdle, demandOf } from "../autoscale/demand.ts";
import { aborted, type Timer } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { type Held, IdleRelease } from "../core/idle-release.ts";
import { keepRunning } from "../core/keep-running.ts";
import { Notifier } from "../core/notifier.ts";
import type { Pod } from "../kube/resource.ts";
import type { OwnPollers } from "../queue/pollers.ts";
import type { BusyProber } from "./busy-probe.ts";
import { BusyWatch } from "./busy-watch.ts";
import type { WorkersContext } from "./context.ts";
import { type CountRunning, DemandWatch, type QueueSource } from "./demand-watch.ts";
import { Fleet, replicasOf } from "./fleet.ts";
import { Scaler, type ScalerOrders } from "./scaler.ts";
import { capacityVerdict, scalingVerdict } from "./verdicts.ts";
import { WorkerEvents } from "./worker-events.ts";
import { isCounted, readWorkerPod, type WorkerPod } from "./worker-pod.ts";

/**
 * Delay between the end of the last worker and the removal of the finalizer, so that a short pause costs no two writes.
 */
const LINGER_MS = 30_000;

/** Delay between the first change of a Pod and the check of all Pods. */
const LOOK_DELAY_MS = 100;

/** What the runtime reads from the Work API. */
export interface WorkSources {
  readonly queue: QueueSource & {
    readonly status: QueueStatus | null;
    readonly pollers: Verdict;
    run(signal: AbortSignal, mayRead: (signal: AbortSignal) => Promise<void>): Promise<void>;
    nudge(): void;
    look(): void;
  };
  readonly count: CountRunning;
  readonly health: {
    readonly key: Verdict;
    readonly queue: Verdict;
    readonly keyRejected: boolean;
    retryKey(): boolean;
    keyChanged(): void;
  };
}

/** The Environment's finalizer. */
export interface Hold extends Held {
  hold(): Promise<boolean>;
}

/** The report of a runtime that has no sessions itself. */
export interface WorkersReport extends RuntimeReport {
  readonly sessions: null;
  readonly workers: WorkersStatus;
}

/**
 * The loops of one Environment in `workers` mode: queue statistics, count of running sessions, busy probes, scaler. The
 * reconciler starts, updates and stops it. A restart recovers all state from the cluster and the Work API, except for
 * the history of the scaling policies.
 */
export class WorkersRuntime {
  readonly #context: WorkersContext;
  readonly #sources: WorkSources;
  readonly #hold: Hold;
  readonly #idleRelease: IdleRelease;
  readonly #onChange: () => void;
  readonly #changed = new Notifier();
  readonly #fleet: Fleet;
  readonly #busy: BusyWatch;
  readonly #demand: DemandWatch;
  readonly #scaler: Scaler;
  readonly #events: WorkerEvents;
  readonly #stop = new AbortController();
  #permissions: Omit<Permissions, "mayClaim"> = { mayAsk: false, mayPrepare: false };
  #running: Promise<void> = Promise.resolve();
  #synced = false;
  /** The template of which a worker was ready last. */
  #readyHash: string | null = null;
  #drainDeadlineMs: number | null = null;
  #lookTimer: Timer | null = null;

  constructor(options: {
    context: WorkersContext;
    /** Creates the sources, which call back at every new reading and every change of health. */
    sources: (onChange: () => void, own: () => OwnPollers) => WorkSources;
    hold: Hold;
    prober: BusyProber;
    onChange: () => void;
  }) {
    const { context } = options;
    this.#context = context;
    this.#hold = options.hold;
    this.#idleRelease = new IdleRelease({
      clock: context.clock,
      lingerMs: LINGER_MS,
      hold: this.#hold,
      isIdle: () => this.#isUnused,
      onFailure: (error) => context.logger.warn({ error: errorText(error) }, "cannot remove the finalizer yet"),
    });
    this.#onChange = options.onChange;
    const changed = () => this.#noteChange();
    this.#sources = options.sources(changed, () => this.#ownPollers);
    this.#fleet = new Fleet(context);
    this.#busy = new BusyWatch({ context, prober: options.prober, pods: () => this.#fleet.pods, onChange: changed });
    this.#demand = new DemandWatch({
      context,
      queue: this.#sources.queue,
      count: this.#sources.count,
      // Includes Pods of a Deployment that is being deleted: they may still serve.
      hasWorkers: () => this.#hasWorkers,
      mayAsk: () => this.#mayRead(false),
      onReading: changed,
    });
    this.#events = new WorkerEvents(context, () => this.#fleet.pods, changed);
    this.#scaler = new Scaler({
      context,
      fleet: this.#fleet,
      busy: this.#busy,
      demand: this.#demand,
      hold: () => this.#hold.hold(),
      orders: () => this.#orders(),
      onChange: changed,
    });
  }

  /** Runs all loops until `stop`. */
  start(): void {
    this.#running = this.#run(this.#stop.signal);
  }

  /** Stops all loops and waits for requests in flight. Deployments and Pods stay for the next process. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#idleRelease.end();
    this.#lookTimer?.cancel();
    this.#changed.notify();
    await this.#running;
    await this.#events.ended();
  }

  /** The spec or the permissions changed. */
  update(permissions: Omit<Permissions, "mayClaim">): void {
    this.#permissions = permissions;
    this.#changed.notify();
    this.#events.look();
    this.#scaler.poke();
  }

  /** There may be work: read the queue soon. */
  look(): void {
    this.#sources.queue.look();
  }

  /** Always false: workers claim on their own, so the operator does not know what they run. */
  runs(): boolean {
    return false;
  }

  /** The environment key changed: try it at once. Workers with the old key end and restart with the new one. */
  keyChanged(): void {
    this.#sources.health.keyChanged();
    this.#changed.notify();
    this.#sources.queue.nudge();
    this.#demand.nudge();
  }

  get keyRejected(): boolean {
    return this.#sources.health.keyRejected;
  }

  /** Always false: the finalizer depends on workers, and not on the key. */
  readonly isStranded = false;

  /** Retries a key that was rejected long ago; does nothing before it is due. */
  retryKey(): void {
    if (this.#sources.health.retryKey()) this.#changed.notify();
  }

  /** A Pod or a Deployment of this Environment changed in the cache. */
  podChanged(name: string): void {
    const pod = this.#context.pods.get(name);
    if (pod) this.#busy.noteFinished(readWorkerPod(pod));
    // Workers change in groups: one check covers them all.
    this.#lookTimer ??= this.#context.clock.setTimer(() => {
      this.#lookTimer = null;
      this.#busy.observe(this.#fleet.pods, (name) => howEnded(this.#context.pods.get(name)));
      this.#events.look();
      this.#noteChange();
    }, LOOK_DELAY_MS);
  }

  /** The Environment is being deleted: idle workers go at once, busy ones at `deadlineMs` (monotonic). */
  drain(deadlineMs: number): void {
    this.#drainDeadlineMs = deadlineMs;
    this.#scaler.poke();
  }

  /** Whether no Deployment, and so no worker, is left: Deployments are deleted in the foreground. */
  get isDrained(): boolean {
    return this.#synced && this.#fleet.all.length === 0;
  }

  /** The remaining workers, as text for the Event of an abandoned drain. */
  get leftovers(): string {
    return `${this.#fleet.remaining.length} workers did not end`;
  }

  /** The drain timed out: the garbage collector deletes what is left. */
  async abandon(): Promise<boolean> {
    await this.stop();
    await this.#hold.release(() => true);
    return true;
  }

  /** Removes the finalizer, if no worker is left. */
  async releaseHold(): Promise<void> {
    await this.#hold.release(() => this.#isUnused);
  }

  /** Whether a worker of the current template has been ready, as far as this process knows. */
  get #wasReady(): boolean {
    const { hash } = this.#context.template();
    if (this.#fleet.pods.some((pod) => pod.isReady && pod.hash === hash)) this.#readyHash = hash;
    return this.#readyHash === hash;
  }

  /** Always empty: workers claim on their own, so the operator does not know what they run. */
  sessions(): readonly never[] {
    return [];
  }

  report(): WorkersReport {
    const { environment, clock, pods } = this.#context;
    const counted = this.#fleet.pods.filter(isCounted);
    const { view } = this.#scaler;
    const isProbed = this.#busy.isProbed;
    const workers = {
      desired: view.decision?.replicas ?? this.#fleet.replicas,
      replicas: counted.length,
      ready: counted.filter(({ isReady }) => isReady).length,
      busy: isProbed ? counted.filter((pod) => this.#busy.stateOf(pod) === "busy").length : 0,
    };
    const { health, queue } = this.#sources;
    return {
      queue: queue.status,
      sessions: null,
      workers,
      verdicts: [
        health.key,
        health.queue,
        capacityVerdict(
          counted.flatMap(({ name }) => pods.get(name) ?? []),
          this.#fleet.deployments,
          {
            replicas: counted.length + this.#scaler.ending,
            max: environment().spec.workers?.maxReplicas ?? 0,
            depth: queue.stats?.depth ?? 0,
            nowMs: this.#context.kube.now(),
            wasReady: this.#wasReady,
            waitsFor: this.#events.problem,
          },
        ),
        scalingVerdict(view, this.#demand.readings, { blockedReason: this.#demand.blockedReason, clock }),
        queue.pollers,
      ],
      blocked: unread(this.#context.problem(), this.#synced),
    };
  }

  async #run(signal: AbortSignal): Promise<void> {
    await Promise.race([this.#context.synced, aborted(signal)]);
    if (signal.aborted) return;
    this.#synced = true;
    this.#events.start(signal);
    this.#noteChange();
    const mayRead = (until: AbortSignal) => this.#changed.until(() => this.#mayRead(true), until);
    const mayCount = (until: AbortSignal) => this.#changed.until(() => this.#mayRead(false), until);
    await Promise.all([
      this.#keepRunning(signal, () => this.#sources.queue.run(signal, mayRead)),
      this.#keepRunning(signal, () => this.#demand.run(signal, mayCount)),
      this.#keepRunning(signal, () => this.#busy.run(signal)),
      this.#keepRunning(signal, () => this.#scaler.run(signal)),
    ]);
  }

  #keepRunning(signal: AbortSignal, loop: () => Promise<void>): Promise<void> {
    const { timing, random, clock, logger } = this.#context;
    const backoff = { baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs };
    const onError = (error: unknown) => {
      const stack = error instanceof Error ? error.stack : undefined;
      logger.error({ error: errorText(error), stack }, "a loop of an Environment failed");
    };
    return keepRunning(loop, { clock, random, backoff, onError }, signal);
  }

  /**
   * Whether requests may be sent and make sense: only the served Environment, and one that still has workers, needs to
   * know the demand. @param checksKey whether the request checks a key that has not been accepted yet
   */
  #mayRead(checksKey: boolean): boolean {
    if (!this.#permissions.mayAsk || this.keyRejected) return false;
    const isUnchecked = checksKey && this.#sources.health.key.reason !== "KeyAccepted";
    return isUnchecked || this.#hasWorkers || this.#context.precedence().isServed;
  }

  get #hasWorkers(): boolean {
    return this.#fleet.replicas > 0 || this.#fleet.remaining.length > 0;
  }

  #orders(): ScalerOrders {
    const { environment } = this.#context;
    const isDraining = this.#drainDeadlineMs !== null;
    const { isServed, mayClaim } = this.#context.precedence();
    return {
      mayGrow: this.#permissions.mayPrepare && mayClaim,
      // Workers finish their sessions if their template is no longer allowed, or another Environment has the queue.
      isLeaving: isDraining || environment().spec.paused || !this.#fleet.isAllowed || !isServed,
      isDraining,
      overAtMs: this.#drainDeadlineMs,
    };
  }

  /**
   * A worker polls once for each session that it can serve. Without a probe, any worker may be busy, unless no session
   * runs.
   */
  get #ownPollers(): OwnPollers {
    const { clock, environment, timing } = this.#context;
    const { sessionsPerReplica = 1 } = environment().spec.workers ?? {};
    const { pods } = this.#fleet;
    const isUnused = areAllIdle(demandOf(this.#demand.readings, clock.monotonic(), timing.demandStaleMs));
    const isFree = (pod: WorkerPod) => (this.#busy.isProbed ? this.#busy.stateOf(pod) === "idle" : isUnused);
    const shouldPoll = pods.some((pod) => isCounted(pod) && pod.isReady && isFree(pod));
    return { most: pods.length * sessionsPerReplica, shouldPoll };
  }

  get #isUnused(): boolean {
    return (
      this.#synced && this.#fleet.remaining.length === 0 && this.#fleet.all.every((each) => replicasOf(each) === 0)
    );
  }

  #noteChange(): void {
    this.#changed.notify();
    this.#demand.look();
    this.#scaler.poke();
    this.#idleRelease.noteChange();
    this.#onChange();
  }
}

function unread(problem: string | null, hasSynced: boolean): Verdict | null {
  if (problem === null) return null;
  return hasSynced
    ? {
        reason: "StatusOutdated",
        message: `Berth misses changes of Deployments and Pods, because it cannot list or watch them: ${problem}`,
      }
    : { reason: "NothingStarts", message: `Berth scales nothing until it can list Deployments and Pods: ${problem}` };
}

/** How a worker ended, according to its Pod. */
function howEnded(pod: Pod | undefined): string {
  if (!pod) return "its Pod was deleted";
  const { metadata, status } = pod;
  const { deletionTimestamp, deletionGracePeriodSeconds } = metadata;
  const disruption = status?.conditions?.find(({ type, status: is }) => type === "DisruptionTarget" && is === "True");
  const cause = disruption
    ? `${disruption.reason ?? "DisruptionTarget"}: ${disruption.message ?? "its Pod was disrupted"}; `
    : deletionTimestamp === undefined
      ? ""
      : `its Pod was deleted, with a grace period of ${deletionGracePeriodSeconds} s; `;
  for (const { name, state, lastState } of status?.containerStatuses ?? []) {
    const end = state?.terminated ?? lastState?.terminated;
    if (!end) continue;
    return `${cause}container ${name} ended with exit code ${end.exitCode}${end.reason ? ` (${end.reason})` : ""}`;
  }
  return `${cause}${status?.reason ?? "its program no longer runs"}`;
}
