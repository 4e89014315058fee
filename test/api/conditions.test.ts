import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ConditionReason, REASONS } from "../../src/api/condition-reasons.ts";
import { CONDITION_TYPES } from "../../src/api/condition-types.ts";
import {
  type Condition,
  type ConditionUpdate,
  conditionFor,
  findCondition,
  MAX_CONDITION_MESSAGE,
  ownConditions,
  setCondition,
  withKstatus,
} from "../../src/api/conditions.ts";
import { environmentStatus } from "../../src/api/status.ts";

const EARLIER = "2026-01-01T00:00:00Z";
const LATER = "2026-01-01T00:05:00Z";

const update = fc.record({
  type: fc.constantFrom(...CONDITION_TYPES),
  status: fc.constantFrom("True" as const, "False" as const, "Unknown" as const),
  reason: fc.constantFrom(...(Object.keys(REASONS) as ConditionReason[])),
  message: fc.string(),
  observedGeneration: fc.nat(),
});
const time = fc.nat({ max: 1e9 }).map((seconds) => new Date(seconds * 1000).toISOString());

/** The conditions after a series of updates. */
const applied = (updates: readonly (readonly [ConditionUpdate, string])[]) =>
  updates.reduce<Condition[]>((conditions, [next, now]) => setCondition(conditions, next, now), []);
const history = fc.array(fc.tuple(update, time), { maxLength: 20 });

describe("setCondition", () => {
  test("moves lastTransitionTime only when the status changes", () => {
    const first = setCondition([], conditionFor("KeyAccepted", "", 1), EARLIER);
    const sameStatus = setCondition(first, { ...conditionFor("KeyAccepted", "again", 2), reason: "Available" }, LATER);
    const changed = setCondition(sameStatus, conditionFor("KeyRejected", "401", 2), LATER);
    expect([first, sameStatus, changed].map((conditions) => conditions[0]?.lastTransitionTime)).toEqual([
      EARLIER,
      EARLIER,
      LATER,
    ]);
    expect(sameStatus[0]).toMatchObject({ reason: "Available", message: "again", observedGeneration: 2 });
  });

  test("keeps one condition per type after any series of updates", () => {
    fc.assert(
      fc.property(history, (updates) => {
        const types = applied(updates).map(({ type }) => type);
        expect(new Set(types).size).toBe(types.length);
        expect(new Set(types)).toEqual(new Set(updates.map(([{ type }]) => type)));
      }),
    );
  });

  test("keeps the last update of each type", () => {
    fc.assert(
      fc.property(history, update, time, (updates, next, now) => {
        const after = findCondition(setCondition(applied(updates), next, now), next.type);
        expect(after).toMatchObject(next);
      }),
    );
  });

  test("changes only the condition of the update's type, and never its input", () => {
    fc.assert(
      fc.property(history, update, time, (updates, next, now) => {
        const before = Object.freeze(applied(updates));
        const others = (conditions: readonly Condition[]) => conditions.filter(({ type }) => type !== next.type);
        expect(others(setCondition(before, next, now))).toEqual(others(before));
      }),
    );
  });

  test("gives the same result for a repeated update", () => {
    fc.assert(
      fc.property(history, update, time, time, (updates, next, now, later) => {
        const once = setCondition(applied(updates), next, now);
        expect(setCondition(once, next, later)).toEqual(once);
      }),
    );
  });

  test("cuts a message for which the API server would refuse the status", () => {
    const long = setCondition([], conditionFor("Refused", "x".repeat(MAX_CONDITION_MESSAGE + 1), 1), EARLIER);
    expect(environmentStatus.safeParse({ conditions: long }).success).toBe(true);
  });
});

describe("withKstatus", () => {
  const ready = (reason: ConditionReason, status: "True" | "False" | "Unknown" = "False") =>
    setCondition([], { ...conditionFor("Ready", "why", 3), status, reason }, EARLIER);
  const added = (conditions: readonly Condition[]) =>
    withKstatus(conditions, LATER).filter(({ type }) => type !== "Ready");

  test.each([
    ["Pending", "Unknown", "Reconciling"],
    ["KeySecretMissing", "False", "Reconciling"],
    ["Unreachable", "False", "Reconciling"],
    ["Deleting", "False", "Reconciling"],
    ["InvalidSpec", "False", "Stalled"],
    ["KeyRejected", "False", "Stalled"],
    ["Refused", "False", "Stalled"],
  ] as const)("repeats Ready of reason %s and status %s as %s", (reason, status, type) => {
    const [condition] = ready(reason, status);
    expect(added(ready(reason, status))).toEqual([{ ...condition, type, status: "True", lastTransitionTime: LATER }]);
  });

  test("adds nothing to an Environment that is ready or paused", () => {
    expect(added(ready("Ready", "True"))).toEqual([]);
    expect(added(ready("Paused"))).toEqual([]);
  });

  test("keeps the time while it stays, and leaves none behind when it ends or becomes the other", () => {
    const stalled = withKstatus(ready("KeyRejected"), EARLIER);
    expect(withKstatus(stalled, LATER)).toEqual(stalled);
    const types = (next: ConditionUpdate) =>
      withKstatus(setCondition(stalled, next, LATER), LATER).map(({ type }) => type);
    expect(types(conditionFor("Ready", "", 4))).toEqual(["Ready"]);
    expect(types({ ...conditionFor("Ready", "", 4), status: "False", reason: "Unreachable" })).toEqual([
      "Ready",
      "Reconciling",
    ]);
    expect(ownConditions(stalled)).toEqual(ready("KeyRejected"));
  });
});
