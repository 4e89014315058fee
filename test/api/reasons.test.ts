import { describe, expect, test } from "vitest";
import { type EventReason, eventType, REASONS } from "../../src/api/condition-reasons.ts";
import { CONDITIONS, isGood } from "../../src/api/condition-types.ts";
import { asEndReason, END_REASONS, EVENT_REASONS } from "../../src/api/reasons.ts";

describe("the lists of reasons", () => {
  const all = { ...REASONS, ...END_REASONS, ...EVENT_REASONS };

  test.each(Object.entries(all))(
    "%s is one word, with a sentence about what happened and one about the fix",
    (reason, info) => {
      expect(reason).toMatch(/^[A-Z][A-Za-z]+$/);
      expect(info.description).toMatch(/^[A-Z].*[^.]\.$/);
      expect(info.fix).toMatch(/^.+[^.]\.$/);
    },
  );

  test.each(Object.entries(REASONS))("%s has a fix exactly when its status is not good", (_, { type, status, fix }) => {
    if (!isGood({ type, status }) && status !== "Unknown") expect(fix).not.toBe("Nothing to do.");
  });

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

  test("has a fix for every Warning", () => {
    const idle = Object.entries(all).filter(([, { fix }]) => fix === "Nothing to do.");
    expect(idle.filter(([reason]) => eventType(reason as EventReason) === "Warning")).toEqual([]);
  });

  test("reads an end reason and nothing else", () => {
    expect(asEndReason("OOMKilled")).toBe("OOMKilled");
    expect([undefined, "", "Oomkilled", "constructor"].map(asEndReason)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});
