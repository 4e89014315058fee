import { type ConditionReason, eventType } from "../api/condition-reasons.ts";
import { CONDITIONS, isGood } from "../api/condition-types.ts";
import { type ConditionUpdate, conditionFor } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";

/** Conditions that stand in the way of serving, in the order in which a person would mend them; docs/status.md has it. */
export const IN_THE_WAY = [
  "Authenticated",
  "QueueReachable",
  "TemplateAccepted",
  "NetworkPolicyReady",
  "CapacityAvailable",
  "SessionsStarting",
  "ScalingActive",
  "CredentialMissing",
] as const;

/** Without these known, nobody can say that work is served. */
const MUST_BE_KNOWN = new Set(["Authenticated", "QueueReachable", "TemplateAccepted", "NetworkPolicyReady"]);

/** A reason of `Ready` itself, in words. */
export interface ReadyReason {
  readonly reason: ConditionReason;
  readonly message: string;
}

/** What the operator decided by itself, before anything else may be said of readiness. */
export function ownDecision(environment: Environment): ReadyReason | null {
  // Workers claim by themselves for as long as they are there.
  const begun = environment.spec.workers ? "idle workers go" : "nothing new is claimed";
  if (environment.metadata.deletionTimestamp) {
    return {
      reason: "Deleting",
      message: `${begun}; running sessions may go on for ${environment.spec.deletionGraceSeconds} s (deletionGraceSeconds), then they are stopped`,
    };
  }
  if (environment.spec.paused) {
    return {
      reason: "Paused",
      message: `spec.paused is true: ${begun}, running sessions go on; set it to false to serve again`,
    };
  }
  return null;
}

/** What `Ready` is made of. */
export interface ReadyParts {
  /** What the operator decided itself: it comes before everything else. */
  readonly decided: ReadyReason | null;
  /** Why changes in the namespace are not seen: then all conditions are old. */
  readonly lag: string | null;
  /** What keeps the loops from serving and is no matter of any condition. */
  readonly hindrance: string | null;
  readonly conditions: readonly ConditionUpdate[];
  readonly generation: number;
}

/**
 * `Ready` out of all others: the first condition that stands in the way lends it its reason and words, so that one look
 * says what is wrong.
 */
export function readyCondition({ decided, lag, hindrance, conditions, generation }: ReadyParts): ConditionUpdate {
  const blocked = lag ?? hindrance;
  if (decided) {
    const message = blocked === null ? decided.message : `${decided.message}; ${blocked}`;
    return conditionFor(decided.reason, message, generation);
  }
  if (lag !== null) return conditionFor("StepFailing", lag, generation);
  const byType = new Map(conditions.map((condition) => [condition.type, condition]));
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (condition && !isGood(condition) && isKnown(condition)) return inTheWay(condition, generation);
  }
  if (hindrance !== null) return conditionFor("StepFailing", hindrance, generation);
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (MUST_BE_KNOWN.has(type) && (!condition || condition.status === "Unknown")) {
      return conditionFor("Pending", condition?.message ?? `${CONDITIONS[type].description}`, generation);
    }
  }
  return conditionFor("Ready", "work is served", generation);
}

/** Not yet looked at is no news; could not be looked at is. */
function isKnown({ status, reason }: ConditionUpdate): boolean {
  return status !== "Unknown" || eventType(reason) === "Warning";
}

function inTheWay(condition: ConditionUpdate, generation: number): ConditionUpdate {
  const { reason, message } = condition;
  const status = condition.status === "Unknown" ? "Unknown" : "False";
  return { type: "Ready", status, reason, message, observedGeneration: generation };
}
