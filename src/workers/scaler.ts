import { Backoff, jitter } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Notifier } from "../core/notifier.ts";
import { isAlreadyExists, isConflict, isInvalid } from "../kube/errors.ts";
import type { BusyWatch } from "./busy-watch.ts";
import type { WorkersContext } from "./context.ts";
import { Decider, type Decision } from "./decider.ts";
import type { DemandWatch } from "./demand-watch.ts";
import { type Fleet, hashOfDeployment, replicasOf } from "./fleet.ts";
import { shrink } from "./shrink.ts";
import { splitReplicas } from "./split.ts";

const JITTER = 0.1;

/** Between two decisions at least: many small changes are seen at once. */
const MIN_PAUSE_MS = 250;

/** So many failures in a row are shown: one lost request is no news to a person. */
const FAILURES_TO_SHOW = 2;

/**
 * So many in a row where somebody else may have changed or made the Deployment meanwhile: the caches have shown that by then.
 * A policy of the cluster refuses with the same status, and one whose labels somebody took away has the name, again and again.
 */
const RACES_TO_SHOW = 5;

/** What the scaler says of itself. */
export interface ScalerView {
  readonly decision: Decision | null;
  /** Workers whose program runs and that do not say whether they are busy. */
  readonly silent: number;
  /** Why workers that are too many are still there; null: none are, or nothing holds them. */
  readonly held: string | null;
  /** What the last write failed with; null: all is well. */
  readonly failure: string | null;
}

/** What the scaler may do, as the spec and what stands around it say. */
export interface ScalerOrders {
  /** New workers may be made: the template is accepted. */
  readonly mayGrow: boolean;
  /** No worker is wanted: paused, or the Environment goes. Idle ones go at once. */
  readonly isLeaving: boolean;
  /** The Environment goes: what is left empty is removed, too. */
  readonly isDraining: boolean;
  /** When busy ones go, too, on the monotonic clock; null: never. */
  readonly overAtMs: number | null;
}

/**
 * Brings the number of workers to what the demand asks for: decides purely (src/autoscale), splits the number over the
 * Deployments, shrinks first, then grows. One decision at a time; the next rests on what the last one wrote.
 */
export class Scaler {
  readonly #context: WorkersContext;
  readonly #fleet: Fleet;
  readonly #busy: BusyWatch;
  readonly #demand: DemandWatch;
  readonly #hold: () => Promise<boolean>;
  readonly #orders: () => ScalerOrders;
  readonly #onChange: () => void;
  readonly #poked = new Notifier();
  #isPoked = false;
  readonly #decider: Decider;
  /** Workers that could not go are not tried before this: each try reads the Work API and asks the workers. */
  #restUntilMs = Number.NEGATIVE_INFINITY;
  #view: ScalerView = { decision: null, silent: 0, held: null, failure: null };

  constructor(options: {
    context: WorkersContext;
    fleet: Fleet;
    busy: BusyWatch;
    demand: DemandWatch;
    /** Makes sure of the finalizer; false: the Environment is going, no worker may be made. */
    hold: () => Promise<boolean>;
    orders: () => ScalerOrders;
    onChange: () => void;
  }) {
    this.#context = options.context;
    this.#fleet = options.fleet;
    this.#busy = options.busy;
    this.#demand = options.demand;
    this.#decider = new Decider(options);
    this.#hold = options.hold;
    this.#orders = options.orders;
    this.#onChange = options.onChange;
  }

  get view(): ScalerView {
    return this.#view;
  }

  /** Something changed that a decision rests on. */
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

  /** To the next turn when nothing changes; to the moment at which busy workers go, where that comes first. */
  #pauseMs(): number {
    const { clock, timing, random } = this.#context;
    const { overAtMs } = this.#orders();
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
      this.#context.logger.warn({ error: failure }, "the workers could not be scaled");
      // Somebody else changed or made the Deployment meanwhile: the next turn sees how it is now.
      const mayBeRace = isConflict(error) || isInvalid(error) || isAlreadyExists(error);
      const isNews = backoff.failures + 1 >= (mayBeRace ? RACES_TO_SHOW : FAILURES_TO_SHOW);
      if (isNews) this.#show({ ...this.#view, failure });
      return false;
    }
  }

  #show(view: ScalerView): void {
    const isSame = JSON.stringify(view) === JSON.stringify(this.#view);
    this.#view = view;
    if (!isSame) this.#onChange();
  }

  /** Returns why workers that are too many are still there; null: none are. */
  async #scaleOnce(signal: AbortSignal): Promise<string | null> {
    const orders = this.#orders();
    const { clock, timing, template, environment } = this.#context;
    const { workers } = environment().spec;
    if (!workers) return null;
    if (orders.overAtMs !== null && clock.monotonic() >= orders.overAtMs) return this.#removeAll();
    // Workers of an earlier process, too: an uninstall took the finalizer away and left them running.
    if (!orders.isDraining && this.#fleet.replicas > 0) await this.#hold();
    const isResting = clock.monotonic() < this.#restUntilMs;
    const decision = await this.#decider.decide({ ...orders, isResting }, signal);
    if (signal.aborted) return null;
    this.#view = { ...this.#view, decision, silent: this.#decider.silent };
    const { current } = this.#decider;
    const before = this.#fleet.replicas;
    const targets = splitReplicas({
      total: decision.replicas,
      maxReplicas: workers.maxReplicas,
      hash: template().hash,
      mayGrow: orders.mayGrow && !orders.isLeaving,
      groups: this.#decider.groups(),
    });
    try {
      const held = await this.#shrinkAll(targets, isResting, signal);
      if (signal.aborted) return held;
      const isHeld = held !== null || decision.reason === "ScaleDownStabilized";
      if (isHeld && !isResting) this.#restUntilMs = clock.monotonic() + timing.busyProbeMs;
      await this.#grow(targets.get(template().hash) ?? 0, workers.maxReplicas);
      await this.#tidy();
      const isStillHeld = isResting && decision.wanted !== null && decision.wanted < decision.replicas;
      return held ?? (isStillHeld ? this.#view.held : null);
    } finally {
      // Also what was written before a later request failed.
      this.#decider.note(decision, current, clock.monotonic());
      this.#tell(decision, before, this.#fleet.replicas);
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
      const parts = { fleet: this.#fleet, busy: this.#busy, demand: this.#demand };
      const result = await shrink(parts, deployment, { target, isLeaving: this.#orders().isLeaving }, signal);
      if (signal.aborted) return held;
      held ??= result.held;
    }
    return held;
  }

  /** The Deployment of the present template, up to its part; what old ones still hold is not there for it. */
  async #grow(target: number, maxReplicas: number): Promise<void> {
    const { hash } = this.#context.template();
    const deployments = this.#fleet.deployments;
    const own = deployments.find((each) => hashOfDeployment(each) === hash);
    const others = deployments.filter((each) => each !== own).reduce((sum, each) => sum + replicasOf(each), 0);
    const room = Math.max(0, maxReplicas - others);
    const replicas = Math.min(target, room);
    if (replicas > (own ? replicasOf(own) : 0) && this.#fleet.isAllowed) {
      if (!(await this.#hold())) return;
      if (own) await this.#fleet.scale(own, replicas);
      else await this.#fleet.create(replicas);
    }
  }

  /** Puts right what somebody else changed, and removes Deployments of earlier templates that have nothing left. */
  async #tidy(): Promise<void> {
    const { hash } = this.#context.template();
    const { isDraining } = this.#orders();
    const pods = this.#fleet.remaining;
    for (const deployment of this.#fleet.deployments) {
      const own = hashOfDeployment(deployment);
      const isEmpty = replicasOf(deployment) === 0 && !pods.some((pod) => pod.hash === own);
      if (isEmpty && (own !== hash || isDraining)) await this.#fleet.remove(deployment);
      else if (own === hash && this.#fleet.isForeign(deployment)) await this.#fleet.putRight(deployment);
    }
  }

  /** The time that busy workers were given is over. */
  async #removeAll(): Promise<string | null> {
    for (const deployment of this.#fleet.deployments) await this.#fleet.remove(deployment);
    return null;
  }

  #tell(decision: Decision, before: number, after: number): void {
    const { metrics, labels, announce, logger } = this.#context;
    if (after === before) return;
    const isUp = after > before;
    metrics.workersScaled.inc({ ...labels, direction: isUp ? "up" : "down" });
    announce(isUp ? "ScaledUp" : "ScaledDown", `from ${before} to ${after} workers: ${decision.message}`);
    logger.info({ from: before, to: after, reason: decision.reason }, "workers scaled");
  }
}
