import { type ConditionReason, type ConditionReasonInfo, REASONS } from "./condition-reasons.ts";
import {
  type ConditionStatus,
  type ConditionType,
  KSTATUS_CONDITIONS,
  type KstatusCondition,
} from "./condition-types.ts";

/** A condition in the shape of metav1.Condition. `lastTransitionTime` is RFC 3339 with seconds. */
export interface Condition {
  readonly type: string;
  readonly status: ConditionStatus;
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
  readonly observedGeneration: number;
}

/** Reason and message of a condition. The reason implies its type and status. */
export interface Verdict {
  readonly reason: ConditionReason;
  readonly message: string;
}

/** A reconciler's statement about one condition. `setCondition` derives the transition time. */
export interface ConditionUpdate extends Verdict {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  readonly observedGeneration: number;
}

/** metav1.Condition's bound. The API server refuses the whole status for a longer message. */
export const MAX_CONDITION_MESSAGE = 32_768;

/** Returns the update for a reason, with the type and status from the list of reasons. */
export function conditionFor(reason: ConditionReason, message: string, observedGeneration: number): ConditionUpdate {
  const { type, status } = REASONS[reason];
  return { type, status, reason, message, observedGeneration };
}

/**
 * Returns the conditions with `next` replacing the one of its type, in the same order. Does not change its input.
 * `lastTransitionTime` changes only when the status does.
 */
export function setCondition(conditions: readonly Condition[], next: ConditionUpdate, nowIso: string): Condition[] {
  const before = conditions.find(({ type }) => type === next.type);
  const lastTransitionTime = before?.status === next.status ? before.lastTransitionTime : nowIso;
  const after: Condition = { ...next, message: next.message.slice(0, MAX_CONDITION_MESSAGE), lastTransitionTime };
  return before ? conditions.map((condition) => (condition === before ? after : condition)) : [...conditions, after];
}

/** Returns the conditions without those that repeat `Ready`. */
export function ownConditions(conditions: readonly Condition[] | undefined): Condition[] {
  return conditions?.filter(({ type }) => !Object.hasOwn(KSTATUS_CONDITIONS, type)) ?? [];
}

/**
 * Returns the conditions with those that repeat `Ready` as it is now. Does not change its input.
 * @param unfinished what an Environment that is ready still does; null or undefined: nothing
 */
export function withKstatus(
  conditions: readonly Condition[],
  nowIso: string,
  unfinished?: Verdict | null,
): Condition[] {
  const own = ownConditions(conditions);
  const ready = findCondition(own, "Ready");
  if (!ready) return own;
  const also = ready.status === "True" ? unfinished : null;
  const type = also ? "Reconciling" : repeatedAs(ready);
  if (!type) return own;
  const before = conditions.find((condition) => condition.type === type);
  const lastTransitionTime = before?.lastTransitionTime ?? nowIso;
  const { reason, message } = also ?? ready;
  return [...own, { ...ready, reason, message, type, status: "True", lastTransitionTime }];
}

function repeatedAs({ status, reason }: Condition): KstatusCondition | null {
  if (status === "True" || reason === "Paused") return null;
  const info: ConditionReasonInfo | undefined = REASONS[reason as ConditionReason];
  return info?.stalls ? "Stalled" : "Reconciling";
}

/** Returns the condition of a type, or undefined. */
export function findCondition(conditions: readonly Condition[] | undefined, type: ConditionType) {
  return conditions?.find((condition) => condition.type === type);
}
