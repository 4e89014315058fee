import { describe, expect, test } from "vitest";
import { CONDITION_TYPES, isGood } from "../../src/api/condition-types.ts";

describe("isGood", () => {
  test("knows conditions whose good status is False", () => {
    expect(isGood({ type: "CredentialMissing", status: "False" })).toBe(true);
    expect(isGood({ type: "CredentialMissing", status: "True" })).toBe(false);
    expect(isGood({ type: "Ready", status: "True" })).toBe(true);
  });

  test("counts neither Unknown nor an unknown type as good", () => {
    expect(CONDITION_TYPES.some((type) => isGood({ type, status: "Unknown" }))).toBe(false);
    expect(isGood({ type: "Fine", status: "True" })).toBe(false);
    expect(isGood({ type: "toString", status: "True" })).toBe(false);
  });
});
