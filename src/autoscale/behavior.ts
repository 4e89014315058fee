import {
  isWithin,
  type ScaleEvent,
  type ScaleHistory,
  type ScalingBehavior,
  type ScalingRules,
} from "./scale-history.ts";

const PERCENT = 100;

/**
 * The count nearest to the current one that all recent recommendations agree on: up to the lowest of the scale-up
 * window, down to the highest of the scale-down window. `desired` is the latest recommendation and belongs to both
 * windows. Like stabilizeRecommendationWithBehaviors of the HPA controller in Kubernetes 1.36.
 */
export function stabilized(
  current: number,
  desired: number,
  history: ScaleHistory,
  behavior: ScalingBehavior,
  nowMs: number,
): number {
  let lowest = desired;
  let highest = desired;
  for (const entry of history.recommendations) {
    if (isWithin(entry, behavior.scaleUp.stabilizationWindowSeconds, nowMs)) lowest = Math.min(lowest, entry.replicas);
    if (isWithin(entry, behavior.scaleDown.stabilizationWindowSeconds, nowMs)) {
      highest = Math.max(highest, entry.replicas);
    }
  }
  return Math.min(highest, Math.max(lowest, current));
}

/** The most replicas that the scale-up policies allow now; never less than `current`. Without policies: any number. */
export function scaleUpLimit(current: number, history: ScaleHistory, rules: ScalingRules, nowMs: number): number {
  if (rules.selectPolicy === "Disabled") return current;
  if (rules.policies.length === 0) return Number.POSITIVE_INFINITY;
  const limits = rules.policies.map(({ type, value, periodSeconds }) => {
    const start = replicasBefore(current, history, periodSeconds, nowMs);
    // Round up, because a small count could otherwise never grow by a small percentage, and zero by none. The HPA does
    // not scale from zero.
    return type === "Pods" ? start + value : Math.max(1, Math.ceil(percentOf(start, PERCENT + value)));
  });
  const limit = rules.selectPolicy === "Min" ? Math.min(...limits) : Math.max(...limits);
  return Math.max(current, limit);
}

/** The fewest replicas that the scale-down policies allow now; never more than `current`, never below zero. */
export function scaleDownLimit(current: number, history: ScaleHistory, rules: ScalingRules, nowMs: number): number {
  if (rules.selectPolicy === "Disabled") return current;
  if (rules.policies.length === 0) return 0;
  const limits = rules.policies.map(({ type, value, periodSeconds }) => {
    const start = replicasBefore(current, history, periodSeconds, nowMs);
    // Round down, for the same reason.
    return type === "Pods" ? start - value : Math.floor(percentOf(start, PERCENT - value));
  });
  const limit = rules.selectPolicy === "Min" ? Math.max(...limits) : Math.min(...limits);
  return Math.max(0, Math.min(current, limit));
}

/** Multiplies before it divides: in binary, 100 * 1.1 is slightly above 110 and would be rounded up to 111. */
function percentOf(count: number, percent: number): number {
  return (count * percent) / PERCENT;
}

/** The count at the beginning of the period, derived from the events since then. */
function replicasBefore(current: number, history: ScaleHistory, periodSeconds: number, nowMs: number): number {
  return current - changes(history.ups, periodSeconds, nowMs) + changes(history.downs, periodSeconds, nowMs);
}

function changes(events: readonly ScaleEvent[], periodSeconds: number, nowMs: number): number {
  let sum = 0;
  for (const event of events) if (isWithin(event, periodSeconds, nowMs)) sum += event.change;
  return sum;
}
