import type { WorkersSpec } from "../api/workers-spec.ts";
import { type BusyView, scaleDownFloor } from "../autoscale/busy-guard.ts";
import { boundsOf, decideScale, type ScaleDecision } from "../autoscale/decide-scale.ts";
import { areAllIdle, type Demand, demandOf } from "../autoscale/demand.ts";
import { recordScale, type ScaleHistory, startHistory } from "../autoscale/scale-history.ts";
import { allowsAll } from "../policy/pod-policy.ts";
import type { BusyWatch } from "./busy-watch.ts";
import type { WorkersContext } from "./context.ts";
import type { DemandWatch } from "./demand-watch.ts";
import { type Fleet, hashOfDeployment, needsOfDeployment, replicasOf } from "./fleet.ts";
import type { HashGroup } from "./split.ts";
import { isCounted, isStillRunning, type WorkerPod } from "./worker-pod.ts";

/** An older count is refreshed before workers are added for it: an ended session needs no worker. */
const COUNT_FRESH_MS = 2_000;

/** The number of workers wanted over all Deployments, and why. */
export type Decision = Pick<ScaleDecision, "replicas" | "wanted" | "reason" | "message">;

/** Drops the history, which changes at every turn. */
function wordsOf({ replicas, wanted, reason, message }: ScaleDecision): Decision {
  return { replicas, wanted, reason, message };
}

/** The decision when the demand could not be refreshed before a scale-down. */
function heldAt(current: number, { wanted }: ScaleDecision): Decision {
  const message = "Berth ends no worker before it has read the demand again";
  return { replicas: current, wanted, reason: "ScaleDownStabilized", message };
}

/**
 * Decides how many workers to run, from the fleet, the probes and the readings. It calls the policies of src/autoscale
 * with readings fresh enough for the decision, and keeps the history that these policies need.
 */
export class Decider {
  readonly #context: WorkersContext;
  readonly #fleet: Fleet;
  readonly #busy: BusyWatch;
  readonly #demand: DemandWatch;
  #history: ScaleHistory | null = null;
  /** The last decision, over all Deployments. */
  #total: number | null = null;

  constructor(options: {
    readonly context: WorkersContext;
    readonly fleet: Fleet;
    readonly busy: BusyWatch;
    readonly demand: DemandWatch;
  }) {
    this.#context = options.context;
    this.#fleet = options.fleet;
    this.#busy = options.busy;
    this.#demand = options.demand;
  }

  /**
   * Makes a new decision.
   * @param how `isResting`: surplus workers stay, and nothing is read or probed for them; `isLeaving`: no worker is
   * wanted
   */
  async decide(
    how: { readonly isLeaving: boolean; readonly isResting: boolean },
    signal: AbortSignal,
  ): Promise<Decision> {
    if (how.isLeaving) return this.#leave();
    await this.#demand.catchUp(signal);
    let decision = this.#decideNow();
    const current = this.current;
    if (decision.replicas > current && decision.wanted !== null) {
      await this.#demand.refreshRunning(COUNT_FRESH_MS, signal);
      decision = this.#decideNow();
    } else if (decision.replicas < current) {
      if (how.isResting) return { ...wordsOf(decision), replicas: current };
      // A session may have left the queue after the count and before the statistics, so that neither shows it. Only
      // readings made now, in the right order, prove that there is too little work.
      if (!(await this.#demand.refreshAll(signal))) return heldAt(current, decision);
      decision = this.#decideNow();
    }
    this.#history = decision.history;
    return wordsOf(decision);
  }

  /** The replicas that count for the decision. During a rollout, new replicas beside the old ones do not count. */
  get current(): number {
    const { replicas } = this.#fleet;
    return this.#isHandingOver && this.#total !== null ? Math.min(replicas, this.#total) : replicas;
  }

  /** `maxReplicas`, less the workers that still run although they are deleted. */
  get most(): number {
    return boundsOf(this.#spec, this.ending).most;
  }

  /**
   * Deleted workers that hold their room. An idle one ends at once, so one that still runs finishes its sessions, or
   * ignores SIGTERM and takes more. On a lost node, it is neither Ready nor does it answer.
   */
  get ending(): number {
    const holdsRoom = (pod: WorkerPod) => pod.isReady || this.#busy.stateOf(pod) === "busy";
    return this.#fleet.pods.filter((pod) => isStillRunning(pod) && holdsRoom(pod)).length;
  }

  /** Running workers that do not say whether they are busy. */
  get silent(): number {
    const view = this.#busyView();
    return view.kind === "probed" ? view.unknown : 0;
  }

  /** The Deployments, each with the number of workers that must stay. */
  groups(): HashGroup[] {
    const pods = this.#fleet.pods.filter(isCounted);
    const areSessionsRunning = !areAllIdle(this.#demandNow());
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
        isForbidden: !allowsAll(this.#context.podPolicy, needsOfDeployment(each)),
      };
    });
  }

  /**
   * Records a decision that was carried out.
   * @param from `current` before the write
   */
  note(decision: Decision, from: number, nowMs: number): void {
    this.#total = this.#isHandingOver ? decision.replicas : this.#fleet.replicas;
    const behavior = this.#context.environment().spec.workers?.behavior;
    if (!this.#history || !behavior) return;
    this.#history = recordScale(this.#history, { from, to: this.#total, atMs: nowMs }, behavior);
  }

  #decideNow(): ScaleDecision {
    const nowMs = this.#context.clock.monotonic();
    const current = this.current;
    this.#history ??= startHistory(current, nowMs);
    return decideScale({
      spec: this.#spec,
      current,
      ending: this.ending,
      demand: this.#demandNow(),
      busy: this.#busyView(),
      history: this.#history,
      nowMs,
    });
  }

  get #spec(): WorkersSpec {
    const spec = this.#context.environment().spec.workers;
    if (!spec) throw new TypeError("not an Environment with spec.workers");
    return spec;
  }

  /** No worker is wanted, so no window or policy keeps an idle one. */
  #leave(): Decision {
    const current = this.current;
    const demand = this.#demandNow();
    const busy = this.#busyView();
    if (current > 0 && busy.kind === "unprobed" && demand.kind === "unknown") {
      return {
        replicas: current,
        wanted: 0,
        reason: demand.reason,
        message: `${demand.message}, so the number of workers does not change`,
      };
    }
    const work = demand.kind === "known" ? demand : { running: 0, pending: 0 };
    const floor = scaleDownFloor(busy, current, work);
    if (floor) return { ...floor, wanted: 0 };
    return { replicas: 0, wanted: 0, reason: "DesiredWithinRange", message: "no worker is needed" };
  }

  #demandNow(): Demand {
    const { clock, timing } = this.#context;
    return demandOf(this.#demand.readings, clock.monotonic(), timing.demandStaleMs);
  }

  /** Whether one template is replacing another. */
  get #isHandingOver(): boolean {
    const { hash } = this.#context.template();
    return this.#fleet.deployments.some((each) => hashOfDeployment(each) !== hash && replicasOf(each) > 0);
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
}
