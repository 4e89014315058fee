import type { WorkersSpec } from "../api/workers-spec.ts";
import { scaleDownLimit, scaleUpLimit, stabilized } from "./behavior.ts";
import { type BusyView, scaleDownFloor } from "./busy-guard.ts";
import type { Demand } from "./demand.ts";
import { replicasFor } from "./desired-replicas.ts";
import { neverBack, recordRecommendation, type ScaleHistory } from "./scale-history.ts";

/**
 * Why the count has its value. Uses the HPA's reason where it has one, and Berth's own for readings (`Demand...`) and
 * for workers that may be busy (`WorkersBusy`, `BusyWorkerNotReady`, `SessionsRunning`).
 */
const SCALE_REASONS = [
  "DesiredWithinRange",
  "TooFewReplicas",
  "TooManyReplicas",
  "ScaleUpStabilized",
  "ScaleDownStabilized",
  "ScaleUpLimit",
  "ScaleDownLimit",
  "DemandUnknown",
  "DemandStale",
  "WorkersBusy",
  "BusyWorkerNotReady",
  "SessionsRunning",
] as const;
export type ScaleReason = (typeof SCALE_REASONS)[number];

/** The input of a decision. */
export interface ScaleInput {
  readonly spec: Pick<WorkersSpec, "minReplicas" | "maxReplicas" | "sessionsPerReplica" | "behavior">;
  /** The requested replicas over all Deployments of the Environment. */
  readonly current: number;
  /** Deleted workers whose program still runs, which are none of the replicas. */
  readonly ending: number;
  readonly demand: Demand;
  readonly busy: BusyView;
  readonly history: ScaleHistory;
  /** On the monotonic clock, in milliseconds. */
  readonly nowMs: number;
}

/** The number of replicas over all Deployments. */
export interface ScaleDecision {
  readonly replicas: number;
  /** The replicas that the demand needs, before all limits; null while the demand is unknown. */
  readonly wanted: number | null;
  readonly reason: ScaleReason;
  readonly message: string;
  /** For the next evaluation. Pass it through `recordScale` after a change was written. */
  readonly history: ScaleHistory;
}

type Outcome = Pick<ScaleDecision, "replicas" | "reason" | "message">;

/** The bounds of the count. */
interface Bounds {
  readonly least: number;
  readonly most: number;
  /** Why `most` is less than `maxReplicas`; empty: it is not. */
  readonly why: string;
}

/**
 * The bounds of the spec, less the workers that end: a deleted worker finishes its sessions first, and holds its room
 * until then. The maximum wins over the minimum.
 */
export function boundsOf(spec: Pick<WorkersSpec, "minReplicas" | "maxReplicas">, ending: number): Bounds {
  const most = Math.max(0, spec.maxReplicas - ending);
  const why = ending === 0 ? "" : `, and ${ending} deleted workers still run`;
  return { least: Math.min(spec.minReplicas, most), most, why };
}

/**
 * Decides one evaluation, in the order of the HPA controller (reconcileAutoscaler and
 * normalizeDesiredReplicasWithBehaviors in Kubernetes 1.36). A count out of bounds is corrected at once. Otherwise the
 * demand passes through stabilization, then the rate policies and the bounds. Keeping workers that may be busy comes
 * last, and overrides every bound and policy. Unlike the HPA, it keeps too many replicas while the demand is unknown,
 * and the windows start again when it is known.
 */
export function decideScale(input: ScaleInput): ScaleDecision {
  const { spec, current, demand, history } = input;
  const bounds = boundsOf(spec, input.ending);
  if (current < bounds.least) {
    const wanted = demand.kind === "known" ? replicasFor(demand.sessions, spec) : null;
    return { ...tooFew(spec, bounds), wanted, history };
  }
  const nowMs = neverBack(history, input.nowMs);
  const recordWanted = (replicas: number) => recordRecommendation(history, { replicas, atMs: nowMs }, spec.behavior);
  if (demand.kind === "unknown") {
    const { reason, message } = demand;
    // Record the held count as a recommendation. Otherwise an outage longer than the window would leave it empty, and
    // the first reading afterwards would remove all idle workers.
    const held = recordWanted(current);
    return {
      replicas: current,
      wanted: null,
      reason,
      message: `${message}, so the number of workers does not change`,
      history: held,
    };
  }
  const wanted = replicasFor(demand.sessions, spec);
  if (current > bounds.most) {
    return { ...keepBusyWorkers(input, demand, tooMany(spec, bounds)), wanted, history };
  }
  return {
    ...keepBusyWorkers(input, demand, byBehavior(input, bounds, wanted, nowMs)),
    wanted,
    history: recordWanted(wanted),
  };
}

function byBehavior({ spec, current, history }: ScaleInput, bounds: Bounds, wanted: number, nowMs: number): Outcome {
  const { least, most } = bounds;
  const agreed = stabilized(current, wanted, history, spec.behavior, nowMs);
  if (agreed > current) {
    const limit = scaleUpLimit(current, history, spec.behavior.scaleUp, nowMs);
    if (agreed > Math.min(limit, most)) {
      return limit < most ? tooFast("ScaleUpLimit", limit) : tooMany(spec, bounds);
    }
  } else if (agreed < current) {
    const limit = scaleDownLimit(current, history, spec.behavior.scaleDown, nowMs);
    if (agreed < Math.max(limit, least)) {
      return limit > least ? tooFast("ScaleDownLimit", limit) : tooFew(spec, bounds);
    }
  }
  if (agreed === wanted)
    return { replicas: agreed, reason: "DesiredWithinRange", message: `the demand needs ${wanted} workers` };
  return wanted > current
    ? { replicas: agreed, reason: "ScaleUpStabilized", message: recently("fewer", "scaleUp", wanted) }
    : { replicas: agreed, reason: "ScaleDownStabilized", message: recently("more", "scaleDown", wanted) };
}

function keepBusyWorkers(
  { current, busy }: ScaleInput,
  work: { readonly running: number; readonly pending: number },
  outcome: Outcome,
): Outcome {
  if (outcome.replicas >= current) return outcome;
  const floor = scaleDownFloor(busy, current, work);
  return floor && floor.replicas > outcome.replicas ? floor : outcome;
}

function tooFew({ minReplicas }: ScaleInput["spec"], { least, why }: Bounds): Outcome {
  const message = `minReplicas is ${minReplicas}${least < minReplicas ? why : ""}`;
  return { replicas: least, reason: "TooFewReplicas", message };
}

function tooMany({ maxReplicas }: ScaleInput["spec"], { most, why }: Bounds): Outcome {
  return { replicas: most, reason: "TooManyReplicas", message: `maxReplicas is ${maxReplicas}${why}` };
}

function tooFast(reason: "ScaleUpLimit" | "ScaleDownLimit", limit: number): Outcome {
  const field = reason === "ScaleUpLimit" ? "scaleUp" : "scaleDown";
  return { replicas: limit, reason, message: `behavior.${field} allows ${limit} for now` };
}

function recently(how: "fewer" | "more", field: "scaleUp" | "scaleDown", wanted: number): string {
  return `the demand needs ${wanted} workers, and needed ${how} within behavior.${field}.stabilizationWindowSeconds`;
}
