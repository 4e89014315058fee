import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { environmentCrd, environmentSchema } from "../../src/api/crd-manifest.ts";
import { DEFAULT_SLEEP_SECONDS } from "../../src/api/sleep-needs.ts";
import { type StructuralSchema, toStructuralSchema } from "../../src/api/structural-schema.ts";
import { staleFiles } from "../../tools/generate-crd.ts";
import { type Json, parsed, stored } from "./environments.ts";
import { RULE_CASES } from "./rule-cases.ts";

/** The rule about the object's name, which is not part of a spec. */
const TRIED_ELSEWHERE = new Set(["self.metadata.name.size() <= 46"]);
const EXAMPLES = new URL("../../examples/environments/", import.meta.url);

/** Every node of the schema with its path, except `metadata`, which the API server owns. */
function nodes(schema: StructuralSchema, path = ""): [string, StructuralSchema][] {
  const children: [string, StructuralSchema][] = [
    ...Object.entries(schema.properties ?? {}).map(([name, child]): [string, StructuralSchema] => [
      `${path}.${name}`,
      child,
    ]),
    ...(schema.items ? [[`${path}[]`, schema.items] as [string, StructuralSchema]] : []),
  ];
  return [[path, schema], ...children.flatMap(([at, child]) => nodes(child, at))];
}
const described = nodes(environmentSchema()).filter(([path]) => path !== ".metadata");

describe("the generated files", () => {
  test("match the schema", () => {
    expect(staleFiles()).toEqual([]);
  });

  test("are small enough for a client-side apply, whose annotation holds the whole CRD", () => {
    expect(JSON.stringify(environmentCrd()).length).toBeLessThan(262_144);
  });
});

describe("the CRD", () => {
  test.each(described)("has a sentence for %s", (_, { description }) => {
    expect(description).toMatch(/^[A-Z].*\.$/);
  });

  test.each(described.filter(([, schema]) => schema.type === "string" && !schema.enum && !schema.format))(
    "bounds the length of %s, and so the cost of its rules",
    (path, { maxLength }) => {
      if (path.startsWith(".spec")) expect(maxLength).toBeGreaterThan(0);
    },
  );

  test("has tests that break and pass each of its rules", () => {
    const rules = described.flatMap(([, schema]) => schema["x-kubernetes-validations"] ?? []);
    const untried = rules.filter(
      ({ rule, message }) =>
        !rule.includes("oldSelf") &&
        !TRIED_ELSEWHERE.has(rule) &&
        !RULE_CASES.some((tried) => message.includes(tried.message)),
    );
    expect(rules.length).toBeGreaterThan(20);
    expect(untried).toEqual([]);
  });

  test("has a status subresource and no scale subresource", () => {
    expect(environmentCrd().spec.versions.map(({ subresources }) => subresources)).toEqual([{ status: {} }]);
  });

  test("has only defaults that its own rules accept", () => {
    for (const [path, { default: fallback, enum: values, minimum, maximum }] of described) {
      if (values && fallback !== undefined) expect(values, path).toContain(fallback);
      if (typeof fallback === "number") {
        expect(fallback, path).toBeGreaterThanOrEqual(minimum ?? -Infinity);
        expect(fallback, path).toBeLessThanOrEqual(maximum ?? Infinity);
      }
    }
  });
});

describe("toStructuralSchema", () => {
  test("refuses schemas that a CRD cannot hold, and names the path", () => {
    const schema = z.strictObject({ a: z.strictObject({ b: z.union([z.string(), z.int()]) }) });
    expect(() => toStructuralSchema(schema)).toThrow(".a.b: no place in a CRD for anyOf");
  });

  test("prunes closed objects and preserves open ones", () => {
    const schema = toStructuralSchema(z.strictObject({ open: z.looseObject({}) }));
    expect(schema).toEqual({
      type: "object",
      required: ["open"],
      properties: { open: { type: "object", "x-kubernetes-preserve-unknown-fields": true, properties: {} } },
    });
  });

  test("gives the size of an integer by its format, not by the bounds of its type", () => {
    const { properties } = toStructuralSchema(z.strictObject({ small: z.int32(), large: z.int().min(0) }));
    expect(properties).toEqual({
      small: { type: "integer", format: "int32" },
      large: { type: "integer", format: "int64", minimum: 0 },
    });
  });
});

describe("the examples", () => {
  test.each(readdirSync(EXAMPLES))("%s is accepted", (file) => {
    const example = parse(readFileSync(new URL(file, EXAMPLES), "utf8")) as Json;
    const { metadata } = stored({});
    const environment = parsed({ ...example, metadata: { ...(metadata as Json), ...(example.metadata as Json) } });
    expect(environment.spec).toMatchObject(example.spec as Json);
  });

  test("full.yaml has every field of a sessions Environment", () => {
    const example = parse(readFileSync(new URL("full.yaml", EXAMPLES), "utf8")) as { spec: Json };
    const schema = environmentSchema().properties?.spec?.properties ?? {};
    const fields = (properties: Record<string, StructuralSchema> = {}) => Object.keys(properties);
    expect(Object.keys(example.spec)).toEqual(fields(schema).filter((name) => name !== "workers"));
    expect(Object.keys(example.spec.api as Json)).toEqual(fields(schema.api?.properties));
    expect(Object.keys(example.spec.sessions as Json)).toEqual(fields(schema.sessions?.properties));
  });

  test("full.yaml marks every value that differs from its default", () => {
    const text = readFileSync(new URL("full.yaml", EXAMPLES), "utf8");
    const example = parse(text) as { spec: { sessions: Json } };
    const schema = environmentSchema().properties?.spec?.properties?.sessions?.properties ?? {};
    const differing = Object.entries(schema)
      .filter(([name, { default: fallback }]) => fallback !== undefined && example.spec.sessions[name] !== fallback)
      .map(([name]) => name);
    // Defaults inside an object are marked on their own lines.
    expect(differing).toEqual(["warm", "workspace"]);
    const { workspace } = example.spec.sessions;
    const inner = Object.entries(schema["workspace"]?.properties ?? {}).flatMap(([name, { default: fallback }]) =>
      fallback === undefined ? [] : [[name, fallback]],
    );
    const others = { type: "Pod", sizeLimit: "4Gi", sleepSeconds: DEFAULT_SLEEP_SECONDS };
    expect(workspace).toEqual({ ...Object.fromEntries(inner), ...others });
  });
});
