import { expect, test } from "vitest";
import type { ConditionReason } from "../../src/api/condition-reasons.ts";
import { type ConditionUpdate, conditionFor } from "../../src/api/conditions.ts";
import { type ReadyParts, readyCondition } from "../../src/reconcile/environment-conditions.ts";

const GENERATION = 3;

const GOOD: readonly ConditionReason[] = [
  "KeyAccepted",
  "Reachable",
  "Accepted",
  "PolicyInPlace",
  "Available",
  "Starting",
  "CredentialsPresent",
  "EnvironmentIdUnique",
];

/** All conditions well but for these. */
function conditionsWith(...reasons: readonly ConditionReason[]): ConditionUpdate[] {
  const byType = new Map<string, ConditionUpdate>();
  for (const reason of [...GOOD, ...reasons]) {
    const condition = conditionFor(reason, `words of ${reason}`, GENERATION);
    byType.set(condition.type, condition);
  }
  return [...byType.values()];
}

function ready(conditions: readonly ConditionUpdate[], parts: Partial<ReadyParts> = {}): ConditionUpdate {
  return readyCondition({
    decided: null,
    lag: null,
    blockedReason: null,
    conditions,
    generation: GENERATION,
    ...parts,
  });
}

test("all well is Ready", () => {
  expect(ready(conditionsWith())).toEqual(conditionFor("Ready", "work is served", GENERATION));
});

test.each<ConditionReason>(["NoSessionYet", "AtMaximum", "AcceptedWithWarning", "EnvironmentIdShared"])(
  "%s does not stand in the way",
  (reason) => {
    expect(ready(conditionsWith(reason)).status).toBe("True");
  },
);

test.each<ConditionReason>([
  "KeyRejected",
  "KeySecretMissing",
  "Unreachable",
  "OriginNotAllowed",
  "Refused",
  "AdmissionRefused",
  "QuotaExceeded",
  "BreakerOpen",
  "CredentialMissing",
])("%s lends Ready=False its reason and words", (reason) => {
  expect(ready(conditionsWith(reason))).toEqual({
    type: "Ready",
    status: "False",
    reason,
    message: `words of ${reason}`,
    observedGeneration: GENERATION,
  });
});

test.each<ConditionReason>(["KeySecretUnreadable", "TemplateUnchecked"])(
  "%s could not be judged, which is news: Ready=Unknown with its reason and words",
  (reason) => {
    expect(ready(conditionsWith(reason))).toMatchObject({ status: "Unknown", reason, message: `words of ${reason}` });
  },
);

test.each<ConditionReason>(["KeyUnchecked", "QueueUnchecked"])("%s is only too early: Pending", (reason) => {
  expect(ready(conditionsWith(reason))).toMatchObject({
    status: "Unknown",
    reason: "Pending",
    message: `words of ${reason}`,
  });
});

test("nothing known at all is Pending, with words", () => {
  expect(ready([])).toMatchObject({ status: "Unknown", reason: "Pending", message: expect.stringMatching(/\w/) });
});

test("what is known to be wrong comes before what is not known yet", () => {
  expect(ready(conditionsWith("KeyUnchecked", "Unreachable", "QuotaExceeded")).reason).toBe("Unreachable");
});

test("of several faults, the one that a person mends first", () => {
  expect(ready(conditionsWith("BreakerOpen", "QuotaExceeded", "Refused", "RateLimited", "KeyEmpty")).reason).toBe(
    "KeyEmpty",
  );
  expect(ready(conditionsWith("BreakerOpen", "QuotaExceeded", "Refused")).reason).toBe("Refused");
});

test("what the operator decided itself comes before everything", () => {
  const decided = { reason: "Paused", message: "on purpose" } as const;
  expect(ready(conditionsWith("KeyRejected"), { decided })).toEqual(conditionFor("Paused", "on purpose", GENERATION));
  expect(ready([], { decided, blockedReason: "a step fails" }).message).toBe("on purpose; a step fails");
});

test("what blocks the loops shows where no condition is wrong, and before what is only not known yet", () => {
  expect(ready(conditionsWith("KeyUnchecked"), { blockedReason: "no leave" })).toMatchObject({
    status: "False",
    reason: "StepFailing",
    message: "no leave",
  });
  expect(ready(conditionsWith("Unreachable"), { blockedReason: "no leave" }).reason).toBe("Unreachable");
});

test("caches that do not follow the API server come before all conditions, which rest on them", () => {
  const lag = "changes of Pods are not seen";
  expect(ready(conditionsWith("PreparationFailing"), { lag })).toMatchObject({ status: "False", message: lag });
  const decided = { reason: "Paused", message: "spec.paused is true" } as const;
  expect(ready(conditionsWith(), { lag, decided })).toMatchObject({ reason: "Paused" });
});
