import type { WorkersSpec } from "../api/workers-spec.ts";

export type ScalingBehavior = WorkersSpec["behavior"];
export type ScalingRules = ScalingBehavior["scaleUp"];

const MS = 1_000;

/** The replicas that the demand needed at some time, before stabilization and limits. */
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
 * window that uses them. Not persisted: after a restart it begins with the current count.
 */
export interface ScaleHistory {
  readonly recommendations: readonly Recommendation[];
  readonly ups: readonly ScaleEvent[];
  readonly downs: readonly ScaleEvent[];
}

/**
 * The first history. It counts the current count as a recommendation, so that a restart does not scale down at once.
 */
export function startHistory(current: number, nowMs: number): ScaleHistory {
  return { recommendations: [{ replicas: current, atMs: nowMs }], ups: [], downs: [] };
}

/**
 * Records a change after it was written, because a failed change uses up nothing. Also records changes by other
 * clients, if they are noticed.
 */
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

/** Records the replicas that the demand needs now. */
export function recordRecommendation(
  history: ScaleHistory,
  recommendation: Recommendation,
  behavior: ScalingBehavior,
): ScaleHistory {
  const atMs = neverBack(history, recommendation.atMs);
  const recommendations = [...history.recommendations, { ...recommendation, atMs }];
  return trim({ ...history, recommendations }, behavior, atMs);
}

/** True for an entry less than `seconds` old. A window of 0 s contains nothing, not even an entry of this moment. */
export function isWithin(entry: { readonly atMs: number }, seconds: number, nowMs: number): boolean {
  return nowMs - entry.atMs < seconds * MS;
}

/** The latest known time: a clock that went back (which should not happen) is treated as stopped. */
export function neverBack(history: ScaleHistory, nowMs: number): number {
  const latest = (entries: readonly { readonly atMs: number }[]) => entries.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY;
  return Math.max(nowMs, latest(history.recommendations), latest(history.ups), latest(history.downs));
}

/** Keeps both kinds of events for the longest period of either direction, because each direction uses both. */
function trim(history: ScaleHistory, behavior: ScalingBehavior, nowMs: number): ScaleHistory {
  const { scaleUp, scaleDown } = behavior;
  const window = Math.max(scaleUp.stabilizationWindowSeconds, scaleDown.stabilizationWindowSeconds);
  const period = Math.max(0, ...[...scaleUp.policies, ...scaleDown.policies].map((policy) => policy.periodSeconds));
  return {
    recommendations: onlyExtremes(history.recommendations.filter((entry) => isWithin(entry, window, nowMs))),
    ups: history.ups.filter((entry) => isWithin(entry, period, nowMs)),
    downs: history.downs.filter((entry) => isWithin(entry, period, nowMs)),
  };
}

/**
 * Drops entries that can't matter: only the lowest and highest of a window are used, and every window ends now, so an
 * entry between two later ones can be neither. Otherwise, one reading a second would be thousands of entries in an
 * hour's window.
 */
function onlyExtremes(entries: readonly Recommendation[]): readonly Recommendation[] {
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
