import { describe, expect, test } from "vitest";
import { unsupportedFields } from "../../src/api/unsupported.ts";
import { type Json, parsed, sessionsSpec, stored } from "./environments.ts";

const unsupported = (spec: Json) => unsupportedFields(parsed(stored(spec)).spec);

describe("unsupportedFields", () => {
  test("has nothing to say of the defaults", () => {
    expect(unsupported(sessionsSpec())).toEqual([]);
  });

  test.each([
    ["spec.sessions.credential", "EnvironmentKey", sessionsSpec({ credential: "EnvironmentKey" })],
    ["spec.sessions.parking", "Init", sessionsSpec({ parking: "Init" })],
    ["spec.sessions.disruption", "Protect", sessionsSpec({ disruption: "Protect" })],
  ])("names %s: %s, and what to use instead", (field, value, spec) => {
    expect(unsupported(spec)).toEqual([{ field, value, message: expect.stringMatching(/^spec\..*: (use|create) /) }]);
  });

  test("names every field at once, so that they are mended at once", () => {
    const fields = unsupported(sessionsSpec({ secretDelivery: "File", parking: "Init" })).map(({ field }) => field);
    expect(fields).toEqual(["spec.sessions.secretDelivery", "spec.sessions.parking"]);
  });
});
