import { type ConditionReason, eventType, REASONS } from "../api/condition-reasons.ts";
import { isGood } from "../api/condition-types.ts";
import { type Condition, findCondition, ownConditions } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { type CheckResult, resultsOf } from "./checks.ts";

/** `environment NS/NAME`. */
export function aboutEnvironment({ metadata }: { metadata: { namespace?: string; name?: string } }): string {
  return `environment ${metadata.namespace}/${metadata.name}`;
}

/** Returns one result for each of the Environment's own conditions. */
export function checkConditions({ status, metadata }: Pick<Environment, "metadata" | "status">): CheckResult[] {
  const results = resultsOf("conditions", aboutEnvironment({ metadata }));
  const ready = findCondition(status?.conditions, "Ready");
  if (!ready) {
    const fix = "Wait a moment. If this stays, check that an operator runs that serves this namespace.";
    return [results.fail("no operator has reconciled the Environment yet", fix)];
  }
  if (ready.observedGeneration < metadata.generation) {
    const fix = "Wait a moment. If this stays, check that the operator runs.";
    return [results.warn("the conditions are of an earlier spec", fix)];
  }
  // Ready repeats the first bad condition.
  const others = ownConditions(status?.conditions).filter(
    ({ type, reason }) => type !== "Ready" && reason !== ready.reason,
  );
  return [ready, ...others].map((condition) => {
    const { type, reason } = condition;
    const message = `${type}=${condition.status} ${reason}: ${condition.message}`;
    if (condition === ready ? isGood(ready) : !isTrouble(condition)) return results.pass(message);
    return results[condition === ready && isWarning(reason) ? "fail" : "warn"](message, fixFor(reason), reason);
  });
}

/** A condition that was not evaluated yet is not a problem. */
function isTrouble(condition: Condition): boolean {
  if (condition.status === "Unknown") return isWarning(condition.reason);
  return !isGood(condition) || isWarning(condition.reason);
}

/** An unknown reason, of a newer operator, counts as a warning. */
function isWarning(reason: string): boolean {
  return !Object.hasOwn(REASONS, reason) || eventType(reason as ConditionReason) === "Warning";
}

function fixFor(reason: string): string {
  return Object.hasOwn(REASONS, reason) ? REASONS[reason as ConditionReason].fix : "See docs/troubleshooting.md.";
}
