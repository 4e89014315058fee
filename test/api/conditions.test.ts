import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CONDITION_TYPES,
  CONDITIONS,
  type Condition,
  type ConditionReason,
  type ConditionUpdate,
  conditionFor,
  type EventReason,
  eventType,
  findCondition,
  isGood,
  MAX_CONDITION_MESSAGE,
  REASONS,
  setCondition,
} from "../../src/api/conditions.ts";
import { asEndReason, END_REASONS, EVENT_REASONS } from "../../src/api/reasons.ts";
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

/** Conditions as a row of updates leaves them. */
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

  test("keeps one condition of a type, whatever the row of updates", () => {
    fc.assert(
      fc.property(history, (updates) => {
        const types = applied(updates).map(({ type }) => type);
        expect(new Set(types).size).toBe(types.length);
        expect(new Set(types)).toEqual(new Set(updates.map(([{ type }]) => type)));
      }),
    );
  });

  test("holds what was said last of each type", () => {
    fc.assert(
      fc.property(history, update, time, (updates, next, now) => {
        const after = findCondition(setCondition(applied(updates), next, now), next.type);
        expect(after).toMatchObject(next);
      }),
    );
  });

  test("changes nothing but its own type, and never its input", () => {
    fc.assert(
      fc.property(history, update, time, (updates, next, now) => {
        const before = Object.freeze(applied(updates));
        const others = (conditions: readonly Condition[]) => conditions.filter(({ type }) => type !== next.type);
        expect(others(setCondition(before, next, now))).toEqual(others(before));
      }),
    );
  });

  test("is the same said once or twice", () => {
    fc.assert(
      fc.property(history, update, time, time, (updates, next, now, later) => {
        const once = setCondition(applied(updates), next, now);
        expect(setCondition(once, next, later)).toEqual(once);
      }),
    );
  });

  test("cuts a message that the API server would refuse the status for", () => {
    const long = setCondition([], conditionFor("Refused", "x".repeat(MAX_CONDITION_MESSAGE + 1), 1), EARLIER);
    expect(environmentStatus.safeParse({ conditions: long }).success).toBe(true);
  });
});

describe("isGood", () => {
  test("knows conditions whose good status is False", () => {
    expect(isGood({ type: "CredentialMissing", status: "False" })).toBe(true);
    expect(isGood({ type: "CredentialMissing", status: "True" })).toBe(false);
    expect(isGood({ type: "Ready", status: "True" })).toBe(true);
  });

  test("takes neither Unknown nor an unknown type for good", () => {
    expect(CONDITION_TYPES.some((type) => isGood({ type, status: "Unknown" }))).toBe(false);
    expect(isGood({ type: "Fine", status: "True" })).toBe(false);
    expect(isGood({ type: "toString", status: "True" })).toBe(false);
  });
});

describe("the lists of reasons", () => {
  const all = { ...REASONS, ...END_REASONS, ...EVENT_REASONS };

  test.each(Object.entries(all))(
    "%s is one word and says what happened and what to do in a sentence each",
    (reason, info) => {
      expect(reason).toMatch(/^[A-Z][A-Za-z]+$/);
      expect(info.description).toMatch(/^[A-Z].*[^.]\.$/);
      expect(info.mend).toMatch(/^.+[^.]\.$/);
    },
  );

  test.each(Object.entries(REASONS))(
    "%s has a mend exactly when it is not as it should be",
    (_, { type, status, mend }) => {
      if (!isGood({ type, status }) && status !== "Unknown") expect(mend).not.toBe("Nothing to do.");
    },
  );

  test("has a good reason for every condition", () => {
    const good = Object.values(REASONS)
      .filter(isGood)
      .map(({ type }) => type);
    expect(new Set(good)).toEqual(new Set(Object.keys(CONDITIONS)));
  });

  test.each([
    ["KeyRejected", "Warning"],
    ["AcceptedWithWarning", "Warning"],
    ["CredentialMissing", "Warning"],
    ["EnvironmentIdShared", "Warning"],
    ["OOMKilled", "Warning"],
    ["DrainGivenUp", "Warning"],
    ["KeyAccepted", "Normal"],
    ["CredentialsPresent", "Normal"],
    ["Paused", "Normal"],
    ["NoSessionYet", "Normal"],
    ["Completed", "Normal"],
    ["SessionStarted", "Normal"],
  ] as const)("writes %s as a %s Event", (reason, type) => {
    expect(eventType(reason)).toBe(type);
  });

  test("writes no Warning that leaves nothing to do", () => {
    const idle = Object.entries(all).filter(([, { mend }]) => mend === "Nothing to do.");
    expect(idle.filter(([reason]) => eventType(reason as EventReason) === "Warning")).toEqual([]);
  });

  test("reads an end reason back and takes nothing else for one", () => {
    expect(asEndReason("OOMKilled")).toBe("OOMKilled");
    expect([undefined, "", "Oomkilled", "constructor"].map(asEndReason)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});
