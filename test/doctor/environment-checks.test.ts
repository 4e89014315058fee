import { expect, test } from "vitest";
import { checkConditions } from "../../src/doctor/environment-checks.ts";

const condition = (type: string, status: string, reason: string) => ({
  ...{ type, status: status as "True", reason, message: `because of ${reason}` },
  ...{ observedGeneration: 2, lastTransitionTime: "2026-01-02T03:04:05Z" },
});

/** The results of conditions, as `status message`. */
function check(conditions: ReturnType<typeof condition>[], generation = 2): string[] {
  const metadata = {
    name: "research",
    namespace: "agents",
    uid: "u",
    generation,
    resourceVersion: "1",
    creationTimestamp: "",
  };
  const found = checkConditions({ metadata, status: { conditions } });
  for (const { fix, status } of found) expect(fix === null).toBe(status === "pass");
  return found.map(({ status, message }) => `${status} ${message}`);
}

test("prints every condition, and the one that Ready repeats only once", () => {
  expect(
    check([
      condition("Ready", "False", "KeySecretMissing"),
      condition("Authenticated", "False", "KeySecretMissing"),
      condition("TemplateAccepted", "True", "AcceptedWithWarning"),
      condition("QueueReachable", "Unknown", "ReasonOfTomorrow"),
      condition("NetworkPolicyReady", "Unknown", "PolicyUnchecked"),
    ]),
  ).toEqual([
    "fail Ready=False KeySecretMissing: because of KeySecretMissing",
    "warn TemplateAccepted=True AcceptedWithWarning: because of AcceptedWithWarning",
    "warn QueueReachable=Unknown ReasonOfTomorrow: because of ReasonOfTomorrow",
    "pass NetworkPolicyReady=Unknown PolicyUnchecked: because of PolicyUnchecked",
  ]);
});

test("only warns about deliberate states", () => {
  expect(check([condition("Ready", "False", "Paused")])).toEqual(["warn Ready=False Paused: because of Paused"]);
});

test("reports conditions that are missing, or of an earlier spec", () => {
  expect(check([])).toEqual(["fail no operator has reconciled the Environment yet"]);
  expect(check([condition("Ready", "True", "Ready")], 3)).toEqual(["warn the conditions are of an earlier spec"]);
});
