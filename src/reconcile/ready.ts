import { CONDITIONS, type ConditionReason, type ConditionUpdate, conditionFor, isGood } from "../api/conditions.ts";

/** Conditions that stand in the way of serving, in the order in which a person would mend them. */
const IN_THE_WAY = [
  "Authenticated",
  "QueueReachable",
  "TemplateAccepted",
  "CapacityAvailable",
  "SessionsStarting",
] as const;

/** Without these known, nobody can say that work is served. */
const MUST_BE_KNOWN = new Set(["Authenticated", "QueueReachable", "TemplateAccepted"]);

/**
 * `Ready` out of all others: what the operator decided itself comes first, then the first condition that stands in the
 * way, whose reason and words it repeats: one look says what is wrong.
 */
export function readyCondition(
  decided: { readonly reason: ConditionReason; readonly message: string } | null,
  conditions: readonly ConditionUpdate[],
  generation: number,
): ConditionUpdate {
  if (decided) return conditionFor(decided.reason, decided.message, generation);
  const byType = new Map(conditions.map((condition) => [condition.type, condition]));
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (!condition || isGood(condition)) continue;
    if (condition.status !== "Unknown") return inTheWay(condition, generation);
  }
  for (const type of IN_THE_WAY) {
    const condition = byType.get(type);
    if (MUST_BE_KNOWN.has(type) && (!condition || condition.status === "Unknown")) {
      return conditionFor("Pending", condition?.message ?? `${CONDITIONS[type].description}`, generation);
    }
  }
  return conditionFor("Ready", "work is served", generation);
}

function inTheWay(condition: ConditionUpdate, generation: number): ConditionUpdate {
  return {
    type: "Ready",
    status: "False",
    reason: condition.reason,
    message: condition.message,
    observedGeneration: generation,
  };
}
