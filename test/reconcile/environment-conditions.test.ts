import { describe, expect, test } from "vitest";
import type { ConditionReason } from "../../src/api/condition-reasons.ts";
import { type ConditionUpdate, conditionFor } from "../../src/api/conditions.ts";
import type { Environment } from "../../src/api/environment.ts";
import {
  type ConditionParts,
  environmentConditions,
  type ReadyParts,
  readyCondition,
} from "../../src/reconcile/environment-conditions.ts";

const GENERATION = 3;

const GOOD: readonly ConditionReason[] = [
  "KeyAccepted",
  "Reachable",
  "Accepted",
  "PolicyInPlace",
  "Available",
  "Starting",
  "CredentialsPresent",
];

/** All conditions are good, except these. */
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
    precedence: null,
    blocked: null,
    preparing: null,
    conditions,
    generation: GENERATION,
    ...parts,
  });
}

test("capacity is Unknown while the template is refused, because no Pod is created", () => {
  const capacity = (template: ConditionReason) =>
    environmentConditions({
      environment: {
        metadata: { generation: 1 },
        spec: { environmentId: "env_1", api: { keySecretRef: { name: "key", key: "k" } } },
      } as unknown as Environment,
      report: {
        verdicts: [{ reason: "Available", message: "Pods can be created and get ready" }],
        blocked: null,
      },
      keyProblem: null,
      originAllowed: true,
      template: { reason: template, message: "" },
      policy: { reason: "PolicyInPlace", message: "" },
      precedence: null,
      lag: null,
    }).find(({ type }) => type === "CapacityAvailable");
  expect(capacity("Accepted")).toMatchObject({ status: "True", reason: "Available" });
  expect(capacity("Refused")).toMatchObject({
    status: "Unknown",
    reason: "CapacityUnchecked",
    message: "no Pod is created while the template is refused",
  });
  expect(capacity("TemplateUnchecked")).toMatchObject({ status: "True" });
});

describe("an environmentId without the platform's prefix", () => {
  const message = (reason: ConditionReason, environmentId: string) => {
    const parts: ConditionParts = {
      environment: {
        metadata: { generation: 1 },
        spec: { environmentId, api: { keySecretRef: { name: "key", key: "environment-key" } }, sessions: {} },
      } as unknown as Environment,
      report: { verdicts: [{ reason, message: "words" }], blocked: null },
      keyProblem: null,
      originAllowed: true,
      template: { reason: "Accepted", message: "" },
      policy: { reason: "PolicyInPlace", message: "" },
      precedence: null,
      lag: null,
    };
    return environmentConditions(parts).find((condition) => condition.reason === reason)?.message;
  };
  const DOUBT = "spec.environmentId: research-prod does not begin with env_; copy the id from the console";

  test.each<ConditionReason>(["EnvironmentNotFound", "QueueUnchecked", "Unreachable", "KeyRejected"])(
    "is doubted while the Work API does not accept it: %s",
    (reason) => {
      expect(message(reason, "research-prod")).toBe(`words; ${DOUBT}`);
      expect(message(reason, "env_research")).toBe("words");
    },
  );

  test.each<ConditionReason>(["Reachable", "KeyAccepted"])("is right if the Work API accepts it: %s", (reason) => {
    expect(message(reason, "research-prod")).toBe("words");
  });
});

describe("Ready", () => {
  test("is True if all conditions are good", () => {
    expect(ready(conditionsWith())).toEqual(conditionFor("Ready", "Berth serves work", GENERATION));
  });

  test.each<ConditionReason>(["NoSessionYet", "AtMaximum", "AcceptedWithWarning"])("is not blocked by %s", (reason) => {
    expect(ready(conditionsWith(reason)).status).toBe("True");
  });

  test.each<ConditionReason>([
    "KeyRejected",
    "KeySecretMissing",
    "Unreachable",
    "OriginNotAllowed",
    "Refused",
    "AdmissionRefused",
    "QuotaExceeded",
    "StartsFailing",
    "CredentialMissing",
  ])("is False with the reason and message of %s", (reason) => {
    expect(ready(conditionsWith(reason))).toEqual({
      type: "Ready",
      status: "False",
      reason,
      message: `words of ${reason}`,
      observedGeneration: GENERATION,
    });
  });

  test.each<ConditionReason>(["KeySecretUnreadable", "TemplateUnchecked"])(
    "is Unknown with the reason and message of a failed check: %s",
    (reason) => {
      expect(ready(conditionsWith(reason))).toMatchObject({ status: "Unknown", reason, message: `words of ${reason}` });
    },
  );

  test.each<ConditionReason>(["KeyUnchecked", "QueueUnchecked"])(
    "is Pending while a check has not run yet: %s",
    (reason) => {
      expect(ready(conditionsWith(reason))).toMatchObject({
        status: "Unknown",
        reason: "Pending",
        message: `words of ${reason}`,
      });
    },
  );

  test("is Pending with a message if nothing is known", () => {
    expect(ready([])).toMatchObject({ status: "Unknown", reason: "Pending", message: expect.stringMatching(/\w/) });
  });

  test("prefers a known fault to an unknown condition", () => {
    expect(ready(conditionsWith("KeyUnchecked", "Unreachable", "QuotaExceeded")).reason).toBe("Unreachable");
  });

  test("shows the fault that a person fixes first", () => {
    expect(ready(conditionsWith("StartsFailing", "QuotaExceeded", "Refused", "RateLimited", "KeyEmpty")).reason).toBe(
      "KeyEmpty",
    );
    expect(ready(conditionsWith("StartsFailing", "QuotaExceeded", "Refused")).reason).toBe("Refused");
  });

  test("shows the operator's own decision before everything else", () => {
    const decided = { reason: "Paused", message: "on purpose" } as const;
    expect(ready(conditionsWith("KeyRejected"), { decided })).toEqual(conditionFor("Paused", "on purpose", GENERATION));
    expect(ready([], { decided, blocked: { reason: "NothingStarts", message: "a step fails" } }).message).toBe(
      "on purpose; a step fails",
    );
  });

  test("shows what blocks the loops after faults, but before conditions that are only unknown", () => {
    const blocked = { reason: "CleanupFailing", message: "no leave" } as const;
    expect(ready(conditionsWith("KeyUnchecked"), { blocked })).toMatchObject({ status: "False", ...blocked });
    expect(ready(conditionsWith("Unreachable"), { blocked }).reason).toBe("Unreachable");
  });

  test("shows lagging caches before all conditions, which depend on them", () => {
    const lag = "changes of Pods are not seen";
    expect(ready(conditionsWith("PreparationFailing"), { lag })).toMatchObject({
      ...{ status: "False", reason: "StatusOutdated", message: lag },
    });
    const decided = { reason: "Paused", message: "spec.paused is true" } as const;
    expect(ready(conditionsWith(), { lag, decided })).toMatchObject({ reason: "Paused" });
  });
});

describe("beside another Environment with the same environmentId, Ready", () => {
  const precedence = { reason: "EnvironmentIdShared", message: "already served by agents/a" } as const;

  test("names it before other faults", () => {
    const shown = conditionFor(precedence.reason, precedence.message, GENERATION);
    expect(ready(conditionsWith(), { precedence })).toEqual(shown);
    expect(
      ready(conditionsWith("QuotaExceeded"), {
        precedence,
        blocked: { reason: "CleanupFailing", message: "a step fails" },
      }),
    ).toEqual(shown);
  });

  test.each<ConditionReason>(["KeyRejected", "KeyUnchecked"])(
    "doesn't name it without an accepted key: %s",
    (reason) => {
      expect(ready(conditionsWith(reason), { precedence }).message).not.toContain("agents/a");
    },
  );

  test("is Paused while this one is paused", () => {
    const decided = { reason: "Paused", message: "spec.paused is true" } as const;
    expect(ready(conditionsWith(), { precedence, decided }).reason).toBe("Paused");
  });
});
