import { describe, expect, test } from "vitest";
import { environmentSchema } from "../../src/api/crd-manifest.ts";
import { schemaDifference } from "../../src/doctor/schema-difference.ts";

const NONE = { missing: [], changed: [], unknown: [] };

/** This build's schema with a change. */
function changed(change: (spec: ReturnType<typeof specOf>) => void) {
  const schema = structuredClone(environmentSchema());
  change(specOf(schema));
  return schema;
}

function specOf(schema: ReturnType<typeof environmentSchema>) {
  const spec = schema.properties?.["spec"]?.properties;
  if (!spec) throw new Error("no spec in the schema");
  return spec;
}

describe("the difference of two schemas", () => {
  test("is empty for the same schema with other descriptions and key order", () => {
    const reversed = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(reversed);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(
        Object.entries(value)
          .reverse()
          .map(([key, part]) => [key, reversed(part)]),
      );
    };
    const other = changed((spec) => {
      if (spec["paused"]) spec["paused"].description = "In other words.";
    });
    expect(schemaDifference(environmentSchema(), reversed(other))).toEqual(NONE);
  });

  test("contains a missing field, but not the fields inside it", () => {
    const theirs = changed((spec) => {
      delete spec["paused"];
      delete spec["sessions"]?.properties?.["template"];
    });
    expect(schemaDifference(environmentSchema(), theirs)).toEqual({
      ...NONE,
      missing: [".spec.paused", ".spec.sessions.template"],
    });
  });

  test("contains a field with a different default or limit", () => {
    const theirs = changed((spec) => {
      if (spec["deletionGraceSeconds"]) spec["deletionGraceSeconds"].default = 1;
    });
    expect(schemaDifference(environmentSchema(), theirs)).toEqual({ ...NONE, changed: [".spec.deletionGraceSeconds"] });
  });

  test("contains a field that only the other schema has", () => {
    const theirs = changed((spec) => {
      spec["future"] = { type: "object", properties: { deeper: { type: "string" } } };
    });
    expect(schemaDifference(environmentSchema(), theirs)).toEqual({ ...NONE, unknown: [".spec.future"] });
  });

  test("contains everything if the other schema is missing", () => {
    expect(schemaDifference(environmentSchema(), undefined).missing).toContain("");
  });
});
