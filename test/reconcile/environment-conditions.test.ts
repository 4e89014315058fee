import { expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import {
  type ConditionParts,
  environmentConditions,
  type SharingEnvironment,
} from "../../src/reconcile/environment-conditions.ts";

/** The condition EnvironmentIdShared of an Environment with the id env_1. */
function shared(sharers: readonly SharingEnvironment[], spec: Record<string, unknown> = { sessions: {} }) {
  const parts = {
    environment: {
      metadata: { generation: 1 },
      spec: { environmentId: "env_1", api: { keySecretRef: { name: "key", key: "environment-key" } }, ...spec },
    } as unknown as Environment,
    report: { verdicts: [], blockedReason: null },
    keyProblem: null,
    originAllowed: true,
    template: null,
    policy: { reason: "PolicyInPlace", message: "" },
    sharers,
    lag: null,
  } satisfies ConditionParts;
  return environmentConditions(parts).find(({ type }) => type === "EnvironmentIdShared");
}

const other = (name: string, hasWorkers = false) => ({ name, hasWorkers });
const FIX = "keep one of them and delete the others, or create each with an environmentId of its own";
const TWICE = "workers claim without the operator, so a session can run in two of them at once";

test("names the Environments with the same environmentId in order, and says what to do", () => {
  expect(shared([other("b/two"), other("a/one")])).toMatchObject({
    status: "True",
    message: `spec.environmentId: a/one, b/two have the same environmentId env_1, so these Environments take from one queue; ${FIX}`,
  });
});

test.each([
  ["another one has workers", [other("a/one", true)], { sessions: {} }],
  ["it has workers itself", [other("a/one")], { workers: {} }],
])("says that a session can run twice if %s", (_title, sharers, spec) => {
  expect(shared(sharers, spec)?.message).toBe(
    `spec.environmentId: a/one has the same environmentId env_1, so these Environments take from one queue; ${TWICE}; ${FIX}`,
  );
});

test("is False without a sharing Environment", () => {
  expect(shared([])).toMatchObject({ status: "False", reason: "EnvironmentIdUnique" });
});
