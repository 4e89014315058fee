import type { WorkersSpec } from "../api/workers-spec.ts";

export type ScalingBehavior = WorkersSpec["behavior"];
export type ScalingRules = ScalingBehavior["scaleUp"];

const MS = 1_000;

/** What the demand asked for at some time, before stabilization and limits. */
export interface Recommendation {
  readonly replicas: number;
  /** On the monotonic clock, in milliseconds. */
  readonly atMs: number;
}

/** A change of the count that was written. */
export interface ScaleEvent {
  /** Replicas added or removed, always positive. */
  readonly change: number;
  /** On the monotonic clock, in milliseconds. */
  readonly atMs: number;
}

/**
 * What the policies remember between two evaluations: a plain value, oldest entries first, no older than the longest
 * window that looks at them. It lives as long as the process: after a restart it starts anew with the current count.
 */
export interface ScaleHistory {
  readonly recommendations: readonly Recommendation[];
  readonly ups: readonly ScaleEvent[];
  readonly downs: readonly ScaleEvent[];
}

/** The first history: the present count stands as a recommendation, so that a restart does not scale down at once. */
export function startHistory(current: number, nowMs: number): ScaleHistory {
  return { recommendations: [{ replicas: current, atMs: nowMs }], ups: [], downs: [] };
}

/** Adds a change once it was written: one that failed used nothing up. Also changes by anybody else, if seen. */
export function recordScale(
  history: ScaleHistory,
  scale: { readonly from: number; readonly to: number; readonly atMs: number },
  behavior: ScalingBehavior,
): ScaleHistory {
  const atMs = neverBack(history, scale.atMs);
  const trimmed = trim(history, behavior, atMs);
  const event = { change: Math.abs(scale.to - scale.from), atMs };
  if (scale.to > scale.from) return { ...trimmed, ups: [...trimmed.ups, event] };
  if (scale.to < scale.from) return { ...trimmed, downs: [...trimmed.downs, event] };
  return trimmed;
}

/** Adds what the demand asks for now. */
export function recordRecommendation(
  history: ScaleHistory,
  recommendation: Recommendation,
  behavior: ScalingBehavior,
): ScaleHistory {
  const atMs = neverBack(history, recommendation.atMs);
  const recommendations = [...history.recommendations, { ...recommendation, atMs }];
  return trim({ ...history, recommendations }, behavior, atMs);
}

/** True for an entry less than `seconds` old; a window of 0 s holds nothing, not even what is of this moment. */
export function isWithin(entry: { readonly atMs: number }, seconds: number, nowMs: number): boolean {
  return nowMs - entry.atMs < seconds * MS;
}

/** A clock that went back (it should not) is read as one that stands still. */
export function neverBack(history: ScaleHistory, nowMs: number): number {
  const latest = (entries: readonly { readonly atMs: number }[]) => entries.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY;
  return Math.max(nowMs, latest(history.recommendations), latest(history.ups), latest(history.downs));
}

/** Both kinds of events are kept for the longest period of either direction: each looks at both. */
function trim(history: ScaleHistory, behavior: ScalingBehavior, nowMs: number): ScaleHistory {
  const { scaleUp, scaleDown } = behavior;
  const window = Math.max(scaleUp.stabilizationWindowSeconds, scaleDown.stabilizationWindowSeconds);
  const period = Math.max(...[...scaleUp.policies, ...scaleDown.policies].map((policy) => policy.periodSeconds));
  return {
    recommendations: withoutOutlived(history.recommendations.filter((entry) => isWithin(entry, window, nowMs))),
    ups: history.ups.filter((entry) => isWithin(entry, period, nowMs)),
    downs: history.downs.filter((entry) => isWithin(entry, period, nowMs)),
  };
}

/**
 * Only the lowest and the highest of a window are ever asked for, and every window ends now: an entry between two later
 * ones can be neither. A reading a second would else be thousands of entries for an hour's window.
 */
function withoutOutlived(entries: readonly Recommendation[]): readonly Recommendation[] {
  const kept: Recommendation[] = [];
  let lowest = Number.POSITIVE_INFINITY;
  let highest = Number.NEGATIVE_INFINITY;
  for (const entry of entries.toReversed()) {
    if (entry.replicas >= lowest && entry.replicas <= highest) continue;
    lowest = Math.min(lowest, entry.replicas);
    highest = Math.max(highest, entry.replicas);
    kept.push(entry);
  }
  return kept.reverse();
}
