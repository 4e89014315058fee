import { type ConditionReason, REASONS } from "./condition-reasons.ts";
import type { ConditionStatus, ConditionType } from "./condition-types.ts";

/** A condition in the shape of metav1.Condition. `lastTransitionTime` is RFC 3339 with seconds. */
export interface Condition {
  readonly type: string;
  readonly status: ConditionStatus;
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
  readonly observedGeneration: number;
}

/** What a reconciler says about one condition; the transition time is worked out by `setCondition`. */
export interface ConditionUpdate {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  readonly reason: ConditionReason;
  readonly message: string;
  readonly observedGeneration: number;
}

/** metav1.Condition's bound; a longer message would make the API server refuse the whole status. */
export const MAX_CONDITION_MESSAGE = 32_768;

/** The update that a reason stands for, with the status the list gives it. */
export function conditionFor(reason: ConditionReason, message: string, observedGeneration: number): ConditionUpdate {
  const { type, status } = REASONS[reason];
  return { type, status, reason, message, observedGeneration };
}

/**
 * The conditions with `next` in the place of its type, others and their order kept; never changes its input.
 * `lastTransitionTime` moves only when the status does, so that it says since when something is so.
 */
export function setCondition(conditions: readonly Condition[], next: ConditionUpdate, nowIso: string): Condition[] {
  const before = conditions.find(({ type }) => type === next.type);
  const lastTransitionTime = before?.status === next.status ? before.lastTransitionTime : nowIso;
  const after: Condition = { ...next, message: next.message.slice(0, MAX_CONDITION_MESSAGE), lastTransitionTime };
  return before ? conditions.map((condition) => (condition === before ? after : condition)) : [...conditions, after];
}

/** The condition of a type, or undefined. */
export function findCondition(conditions: readonly Condition[] | undefined, type: ConditionType) {
  return conditions?.find((condition) => condition.type === type);
}
