/** Builders of scaling behaviors, policies and inputs for tests of the autoscaler. */

import { workersSpec } from "../../src/api/workers-spec.ts";
import type { ScaleInput } from "../../src/autoscale/decide-scale.ts";
import type { ScaleHistory, ScalingBehavior, ScalingRules } from "../../src/autoscale/scale-history.ts";

export type Policy = ScalingRules["policies"][number];

/** A behavior as the API server stores it, with the schema's defaults for omitted fields. */
export function behaviorOf(behavior: {
  scaleUp?: Partial<ScalingRules>;
  scaleDown?: Partial<ScalingRules>;
}): ScalingBehavior {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  return workersSpec.parse({ maxReplicas: 1, template, behavior }).behavior;
}

export const pods = (value: number, periodSeconds: number): Policy => ({ type: "Pods", value, periodSeconds });
export const percent = (value: number, periodSeconds: number): Policy => ({ type: "Percent", value, periodSeconds });

export const EMPTY: ScaleHistory = { recommendations: [], ups: [], downs: [] };

/** An input in which only the demand and the behavior matter. */
export function inputOf(input: {
  current: number;
  sessions: number;
  min?: number;
  max?: number;
  ending?: number;
  behavior?: ScalingBehavior;
  history?: ScaleHistory;
  nowMs?: number;
}): ScaleInput {
  return {
    spec: {
      minReplicas: input.min ?? 0,
      maxReplicas: input.max ?? 1000,
      sessionsPerReplica: 1,
      behavior: input.behavior ?? behaviorOf({}),
    },
    current: input.current,
    ending: input.ending ?? 0,
    demand: { kind: "known", sessions: input.sessions, running: 0, pending: 0 },
    busy: { kind: "probed", busy: 0, unknown: 0, notReady: 0 },
    history: input.history ?? EMPTY,
    nowMs: input.nowMs ?? 0,
  };
}
