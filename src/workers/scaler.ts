import { type BusyView, scaleDownFloor } from "../autoscale/busy-guard.ts";
import { decideScale, type ScaleDecision } from "../autoscale/decide-scale.ts";
import { type Demand, demandOf } from "../autoscale/demand.ts";
import { recordScale, type ScaleHistory, startHistory } from "../autoscale/scale-history.ts";
import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Notifier } from "../core/notifier.ts";
import { jitter } from "../core/random.ts";
import type { Deployment } from "../kube/resource.ts";
import type { BusyWatch } from "./busy-watch.ts";
import type { WorkersContext } from "./context.ts";
import type { DemandWatch } from "./demand-watch.ts";
import { type Fleet, hashOfDeployment, replicasOf } from "./fleet.ts";
import { shrink } from "./shrink.ts";
import { splitReplicas } from "./split.ts";
import { isCounted } from "./worker-pod.ts";

const JITTER = 0.1;

/** Between two decisions at least: many small changes are seen at once. */
const MIN_PAUSE_MS = 250;

/** Sessions counted longer ago are counted anew before workers are added for them: one that ended wants none. */
const COUNT_FRESH_MS = 2_000;

/** What the scaler says of itself. */
export interface ScalerView {
  readonly decision: Pick<ScaleDecision, "replicas" | "wanted" | "reason" | "message"> | null;
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

/** What stands when the demand could not be read anew before workers go for it. */
function heldAt(current: number, { wanted }: ScaleDecision): ScalerView["decision"] & object {
  const message = "no worker goes before the demand was read anew";
  return { replicas: current, wanted, reason: "ScaleDownStabilized", message };
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
  #history: ScaleHistory | null = null;
  /** What was decided last, all Deployments together. */
  #total: number | null = null;
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
      const isWell = await this.#evaluate(signal);
      if (signal.aborted) return;
      if (isWell) {
        backoff.reset();
        await sleep(clock, MIN_PAUSE_MS, signal);
        const { overAtMs } = this.#orders();
        const leftMs = overAtMs === null ? Number.POSITIVE_INFINITY : overAtMs - clock.monotonic();
        const waitMs = jitter(timing.scaleMs, JITTER, random);
        // Busy workers go when their time is over, and not a turn later.
        if (!this.#isPoked) await this.#wait(leftMs > 0 ? Math.min(waitMs, leftMs) : waitMs, signal);
      } else {
        await sleep(clock, backoff.next(), signal);
      }
    }
  }

  async #wait(delayMs: number, signal: AbortSignal): Promise<void> {
    const either = new AbortController();
    const bound = AbortSignal.any([signal, either.signal]);
    await Promise.race([this.#poked.wait(bound), sleep(this.#context.clock, delayMs, bound)]);
    either.abort();
  }

  async #evaluate(signal: AbortSignal): Promise<boolean> {
    try {
      const held = await this.#scaleOnce(signal);
      this.#show({ ...this.#view, held, failure: null });
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      const failure = errorText(error);
      this.#context.logger.warn({ error: failure }, "the workers could not be scaled");
      this.#show({ ...this.#view, failure });
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
    const { clock, template, environment } = this.#context;
    const { workers } = environment().spec;
    if (!workers) return null;
    if (orders.overAtMs !== null && clock.monotonic() >= orders.overAtMs) return this.#removeAll();
    const isResting = clock.monotonic() < this.#restUntilMs;
    const decision = await this.#decide({ ...orders, isResting }, signal);
    if (signal.aborted) return null;
    const busy = this.#busyView();
    this.#view = { ...this.#view, decision, silent: busy.kind === "probed" ? busy.unknown : 0 };
    const current = this.#current();
    const before = this.#sum();
    const targets = splitReplicas({
      total: decision.replicas,
      maxReplicas: workers.maxReplicas,
      hash: template().hash,
      mayGrow: orders.mayGrow && !orders.isLeaving,
      groups: this.#groups(),
    });
    const held = await this.#shrinkAll(targets, isResting, signal);
    if (signal.aborted) return held;
    if (held !== null && !isResting) this.#rest();
    await this.#grow(targets.get(template().hash) ?? 0, workers.maxReplicas);
    await this.#tidy();
    const after = this.#sum();
    this.#note(decision, { current, before, after, nowMs: clock.monotonic() });
    return held;
  }

  #rest(): void {
    const { clock, timing } = this.#context;
    this.#restUntilMs = clock.monotonic() + timing.busyProbeMs;
  }

  async #decide(
    orders: ScalerOrders & { readonly isResting: boolean },
    signal: AbortSignal,
  ): Promise<ScalerView["decision"] & object> {
    if (orders.isLeaving) return this.#leave();
    let decision = this.#decideNow();
    const current = this.#current();
    if (decision.replicas > current && decision.wanted !== null) {
      await this.#demand.refreshRunning(COUNT_FRESH_MS, signal);
      decision = this.#decideNow();
    } else if (decision.replicas < current && !orders.isResting) {
      // Sessions counted before an item left the queue do not have it, and statistics read after that have not either:
      // only readings made now, in the right order, say that there is too little work.
      if (!(await this.#demand.refreshAll(signal))) {
        this.#rest();
        return heldAt(current, decision);
      }
      decision = this.#decideNow();
    }
    this.#history = decision.history;
    const { replicas, wanted, reason, message } = decision;
    return { replicas, wanted, reason, message };
  }

  #decideNow(): ScaleDecision {
    const { clock, environment } = this.#context;
    const spec = environment().spec.workers;
    if (!spec) throw new TypeError("not an Environment with spec.workers");
    const nowMs = clock.monotonic();
    const current = this.#current();
    this.#history ??= startHistory(current, nowMs);
    return decideScale({
      spec,
      current,
      demand: this.#demandNow(),
      busy: this.#busyView(),
      history: this.#history,
      nowMs,
    });
  }

  /** Nothing is wanted any more: no window and no policy keeps a worker that is idle. */
  #leave(): ScalerView["decision"] & object {
    const current = this.#current();
    const demand = this.#demandNow();
    const busy = this.#busyView();
    if (busy.kind === "unprobed" && demand.kind === "unknown") {
      return {
        replicas: current,
        wanted: 0,
        reason: demand.reason,
        message: `${demand.message}: the last size is held`,
      };
    }
    const work = demand.kind === "known" ? demand : { running: 0, pending: 0 };
    const floor = scaleDownFloor(busy, current, work);
    if (floor) return { ...floor, wanted: 0 };
    return { replicas: 0, wanted: 0, reason: "DesiredWithinRange", message: "no worker is wanted" };
  }

  #demandNow(): Demand {
    const { clock, timing } = this.#context;
    return demandOf(this.#demand.readings, clock.monotonic(), timing.demandStaleMs);
  }

  /** Replicas asked for now. While a template takes the place of another, those that come beside the old ones do not count. */
  #current(): number {
    const sum = this.#sum();
    const isHandingOver = this.#fleet.deployments.some(
      (each) => hashOfDeployment(each) !== this.#context.template().hash && replicasOf(each) > 0,
    );
    return isHandingOver && this.#total !== null ? Math.min(sum, this.#total) : sum;
  }

  #sum(): number {
    return this.#fleet.deployments.reduce((sum, each) => sum + replicasOf(each), 0);
  }

  #busyView(): BusyView {
    if (!this.#busy.isProbed) return { kind: "unprobed" };
    const running = this.#fleet.pods.filter((pod) => isCounted(pod) && pod.isRunning);
    const kept = running.filter((pod) => this.#busy.stateOf(pod) !== "idle");
    const busy = kept.filter((pod) => this.#busy.stateOf(pod) === "busy").length;
    return {
      kind: "probed",
      busy,
      unknown: kept.length - busy,
      notReady: kept.filter(({ isReady }) => !isReady).length,
    };
  }

  #groups() {
    const pods = this.#fleet.pods.filter(isCounted);
    const areSessionsRunning = !this.#areAllIdle();
    return this.#fleet.deployments.map((each) => {
      const hash = hashOfDeployment(each);
      const own = pods.filter((pod) => pod.hash === hash);
      const mayBeBusy = this.#busy.isProbed
        ? own.filter((pod) => this.#busy.stateOf(pod) !== "idle")
        : own.filter(({ isRunning }) => isRunning && areSessionsRunning);
      return {
        hash,
        replicas: replicasOf(each),
        kept: mayBeBusy.length,
        ready: own.filter(({ isReady }) => isReady).length,
        createdAtMs: Date.parse(each.metadata.creationTimestamp ?? "") || 0,
      };
    });
  }

  /** Without a probe: whether no session runs, so that no worker can be busy. */
  #areAllIdle(): boolean {
    const demand = this.#demandNow();
    return demand.kind === "known" && demand.running + demand.pending === 0;
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
    if (replicas > (own ? replicasOf(own) : 0)) {
      if (!(await this.#hold())) return;
      if (own) await this.#fleet.scale(own, replicas);
      else await this.#fleet.create(replicas);
    }
  }

  /** Puts right what somebody else changed, and removes Deployments of earlier templates that have nothing left. */
  async #tidy(): Promise<void> {
    const { hash } = this.#context.template();
    const { isDraining } = this.#orders();
    const pods = this.#fleet.pods;
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

  #note(
    decision: ScalerView["decision"] & object,
    sizes: { readonly current: number; readonly before: number; readonly after: number; readonly nowMs: number },
  ): void {
    const { metrics, labels, announce, environment } = this.#context;
    const { current, before, after, nowMs } = sizes;
    const isHandingOver = this.#fleet.deployments.some(
      (each: Deployment) => hashOfDeployment(each) !== this.#context.template().hash && replicasOf(each) > 0,
    );
    this.#total = isHandingOver ? decision.replicas : after;
    const behavior = environment().spec.workers?.behavior;
    if (this.#history && behavior) {
      this.#history = recordScale(this.#history, { from: current, to: this.#total, atMs: nowMs }, behavior);
    }
    if (after === before) return;
    const isUp = after > before;
    metrics.workersScaled.inc({ ...labels, direction: isUp ? "up" : "down" });
    announce(isUp ? "ScaledUp" : "ScaledDown", `from ${before} to ${after} workers: ${decision.message}`);
  }
}
