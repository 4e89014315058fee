import { Backoff, jitter } from "../core/backoff.ts";
import { SECOND_MS, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Notifier } from "../core/notifier.ts";
import { DRAIN_GRACE } from "../core/timing.ts";
import { isAlreadyExists, isConflict, isInvalid } from "../kube/errors.ts";
import type { BusyWatch } from "./busy-watch.ts";
import type { WorkersContext } from "./context.ts";
import { Decider, type Decision } from "./decider.ts";
import type { DemandWatch } from "./demand-watch.ts";
import { type Fleet, hashOfDeployment, replicasOf } from "./fleet.ts";
import { shrink } from "./shrink.ts";
import { splitReplicas } from "./split.ts";

const JITTER = 0.1;

/** The least time between two decisions, which combines many small changes. */
const MIN_PAUSE_MS = 250;

/** Consecutive failures before the status shows them. One lost request is not worth a condition. */
const FAILURES_TO_SHOW = 2;

/**
 * The same for failures that another client's write can cause: by then the caches show that write. Two lasting causes
 * look alike: a cluster policy that refuses with the same status, and a Deployment that keeps the name but lost its
 * labels.
 */
const RACES_TO_SHOW = 5;

/** What the scaler reports. */
export interface ScalerView {
  readonly decision: Decision | null;
  /** Running workers that do not say whether they are busy. */
  readonly silent: number;
  /** Why surplus workers still exist; null: there are none, or nothing holds them. */
  readonly held: string | null;
  /** The error of the last write; null: it succeeded. */
  readonly failure: string | null;
}

/** What the scaler may do, according to the spec and its surroundings. */
export interface ScalerOrders {
  /** Whether new workers may be created: the template is accepted, and no other Environment claims from the queue. */
  readonly mayGrow: boolean;
  /**
   * Whether no worker is needed, since the Environment is paused, being deleted, not allowed any more, or not the one
   * that serves its queue. Idle workers go at once.
   */
  readonly isLeaving: boolean;
  /** Whether the Environment is being deleted: empty Deployments are removed, too. */
  readonly isDraining: boolean;
  /** When busy workers must go, too (monotonic); null: never. */
  readonly overAtMs: number | null;
}

export interface ScalerOptions {
  readonly context: WorkersContext;
  readonly fleet: Fleet;
  readonly busy: BusyWatch;
  readonly demand: DemandWatch;
  /** Makes sure that the finalizer is set; false: the Environment is being deleted, and no worker may be created. */
  readonly hold: () => Promise<boolean>;
  readonly orders: () => ScalerOrders;
  readonly onChange: () => void;
}

/**
 * Brings the number of workers to the demand. It decides purely (src/autoscale), splits the number over the
 * Deployments, shrinks first, then grows. One decision runs at a time, and the next builds on what the last one wrote.
 */
export class Scaler {
  readonly #options: ScalerOptions;
  readonly #context: WorkersContext;
  readonly #fleet: Fleet;
  readonly #poked = new Notifier();
  #isPoked = false;
  readonly #decider: Decider;
  /**
   * Surplus workers that could not go are not tried again before this: each try reads the Work API and probes the
   * workers.
   */
  #restUntilMs = Number.NEGATIVE_INFINITY;
  #view: ScalerView = { decision: null, silent: 0, held: null, failure: null };

  constructor(options: ScalerOptions) {
    this.#options = options;
    this.#context = options.context;
    this.#fleet = options.fleet;
    this.#decider = new Decider(options);
  }

  get view(): ScalerView {
    return this.#view;
  }

  /** Deleted workers that finish their sessions, and count towards `maxReplicas`. */
  get ending(): number {
    return this.#decider.ending;
  }

  /** An input of the decision changed. */
  poke(): void {
    this.#isPoked = true;
    this.#poked.notify();
  }

  /** Decides and acts until the signal aborts. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, timing, random } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    while (!signal.aborted) {
      this.#isPoked = false;
      const isWell = await this.#evaluate(backoff, signal);
      if (signal.aborted) return;
      await sleep(clock, isWell ? MIN_PAUSE_MS : backoff.next(), signal);
      if (isWell && !this.#isPoked) await this.#poked.waitAtMost(this.#context.clock, this.#pauseMs(), signal);
    }
  }

  /** Time to the next turn if nothing changes, or to the moment at which busy workers must go, if that is earlier. */
  #pauseMs(): number {
    const { clock, timing, random } = this.#context;
    const { overAtMs } = this.#options.orders();
    const waitMs = jitter(timing.scaleMs, JITTER, random);
    const leftMs = (overAtMs ?? Number.NEGATIVE_INFINITY) - clock.monotonic();
    return leftMs > 0 ? Math.min(waitMs, leftMs) : waitMs;
  }

  async #evaluate(backoff: Backoff, signal: AbortSignal): Promise<boolean> {
    try {
      const held = await this.#scaleOnce(signal);
      backoff.reset();
      this.#show({ ...this.#view, held, failure: null });
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      const failure = errorText(error);
      this.#context.logger.warn({ error: failure }, "cannot scale the workers");
      // Another client may have changed or created the Deployment meanwhile: the next turn reads the new state.
      const mayBeRace = isConflict(error) || isInvalid(error) || isAlreadyExists(error);
      const isNews = backoff.failures + 1 >= (mayBeRace ? RACES_TO_SHOW : FAILURES_TO_SHOW);
      if (isNews) this.#show({ ...this.#view, failure });
      return false;
    }
  }

  #show(view: ScalerView): void {
    const isSame = JSON.stringify(view) === JSON.stringify(this.#view);
    this.#view = view;
    if (!isSame) this.#options.onChange();
  }

  /** Returns why surplus workers still exist; null: there are none. */
  async #scaleOnce(signal: AbortSignal): Promise<string | null> {
    const orders = this.#options.orders();
    const { clock, timing, template, environment } = this.#context;
    const { workers } = environment().spec;
    if (!workers) return null;
    if (orders.overAtMs !== null && clock.monotonic() >= orders.overAtMs) return this.#removeAll();
    // Also for workers of an earlier process: an uninstall removed the finalizer and left them running.
    if (!orders.isDraining && this.#fleet.replicas > 0) await this.#options.hold();
    const isResting = clock.monotonic() < this.#restUntilMs;
    const decision = await this.#decider.decide({ ...orders, isResting }, signal);
    if (signal.aborted) return null;
    this.#view = { ...this.#view, decision, silent: this.#decider.silent };
    const { current } = this.#decider;
    const before = this.#fleet.replicas;
    const targets = splitReplicas({
      total: decision.replicas,
      maxReplicas: this.#decider.most,
      hash: template().hash,
      mayGrow: orders.mayGrow && !orders.isLeaving,
      groups: this.#decider.groups(),
    });
    try {
      const held = await this.#shrinkAll(targets, isResting, signal);
      if (signal.aborted) return held;
      const isHeld = held !== null || decision.reason === "ScaleDownStabilized";
      if (isHeld && !isResting) this.#restUntilMs = clock.monotonic() + timing.busyProbeMs;
      await this.#grow(targets.get(template().hash) ?? 0, this.#decider.most);
      await this.#tidy();
      const isStillHeld = isResting && decision.wanted !== null && decision.wanted < decision.replicas;
      return held ?? (isStillHeld ? this.#view.held : null);
    } finally {
      // Includes what was written before a later request failed.
      this.#decider.note(decision, current, clock.monotonic());
      this.#reportChange(decision, before, this.#fleet.replicas);
    }
  }

  async #shrinkAll(
    targets: ReadonlyMap<string, number>,
    isResting: boolean,
    signal: AbortSignal,
  ): Promise<string | null> {
    let held: string | null = null;
    for (const deployment of this.#fleet.deployments) {
      const target = targets.get(hashOfDeployment(deployment)) ?? 0;
      if (target >= replicasOf(deployment)) continue;
      if (isResting) return this.#view.held;
      const parts = { fleet: this.#fleet, busy: this.#options.busy, demand: this.#options.demand };
      const result = await shrink(parts, deployment, { target, isLeaving: this.#options.orders().isLeaving }, signal);
      if (signal.aborted) return held;
      held ??= result.held;
    }
    return held;
  }

  /** Grows the current template's Deployment to its target, within the room that the other Deployments leave. */
  async #grow(target: number, maxReplicas: number): Promise<void> {
    const { hash } = this.#context.template();
    const deployments = this.#fleet.deployments;
    const own = deployments.find((each) => hashOfDeployment(each) === hash);
    const others = deployments.filter((each) => each !== own).reduce((sum, each) => sum + replicasOf(each), 0);
    const room = Math.max(0, maxReplicas - others);
    const replicas = Math.min(target, room);
    if (replicas > (own ? replicasOf(own) : 0) && this.#fleet.isAllowed) {
      // Another Environment of the queue may serve it since the orders were read.
      if (!(await this.#options.hold()) || !this.#options.orders().mayGrow) return;
      if (own) await this.#fleet.scale(own, replicas);
      else await this.#fleet.create(replicas);
    }
  }

  /** Restores what another client changed, and removes empty Deployments of earlier templates. */
  async #tidy(): Promise<void> {
    const { hash } = this.#context.template();
    const { isDraining } = this.#options.orders();
    const pods = this.#fleet.remaining;
    for (const deployment of this.#fleet.deployments) {
      const own = hashOfDeployment(deployment);
      const isEmpty = replicasOf(deployment) === 0 && !pods.some((pod) => pod.hash === own);
      if (isEmpty && (own !== hash || isDraining)) await this.#fleet.remove(deployment);
      else if (own === hash && this.#fleet.isForeign(deployment)) await this.#fleet.putRight(deployment);
    }
  }

  /**
   * The time limit for busy workers has passed. Their Pods have a long grace period to finish their sessions in, which
   * is shortened when the garbage collector has deleted them: a Pod deleted earlier would be replaced.
   */
  async #removeAll(): Promise<string | null> {
    for (const deployment of this.#fleet.deployments) await this.#fleet.remove(deployment);
    const lastSeconds = Math.ceil((this.#context.timing.drainBoundMs * DRAIN_GRACE) / SECOND_MS);
    for (const pod of this.#fleet.remaining) {
      if (pod.isEnding && (pod.graceSeconds ?? 0) > lastSeconds) await this.#fleet.hurry(pod, lastSeconds);
    }
    return null;
  }

  #reportChange(decision: Decision, before: number, after: number): void {
    const { metrics, labels, announce, logger } = this.#context;
    if (after === before) return;
    const isUp = after > before;
    metrics.workersScaled.inc({ ...labels, direction: isUp ? "up" : "down" });
    announce(isUp ? "ScaledUp" : "ScaledDown", `from ${before} to ${after} workers: ${decision.message}`);
    logger.info({ from: before, to: after, reason: decision.reason }, "workers scaled");
  }
}
