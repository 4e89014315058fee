import { describe, expect, test } from "vitest";
import { environmentSchema } from "../../src/api/crd-manifest.ts";
import { parseEnvironment } from "../../src/api/environment.ts";
import { API_VERSION } from "../../src/api/names.ts";
import type { StructuralSchema } from "../../src/api/structural-schema.ts";
import { isRecord } from "../../src/core/json.ts";
import { chartValues } from "../../tools/chart-values.ts";
import type { Json } from "../api/environments.ts";
import { yamlExamples } from "../support/page-blocks.ts";

const examples = await yamlExamples();
const whole = examples.filter(({ value }) => value.apiVersion === API_VERSION);
/** Parts of an Environment, starting at its spec. */
const parts = examples.filter(({ value }) => value.apiVersion === undefined && value.spec !== undefined);
/**
 * Blocks without a kind are values of the chart, except for a configuration of Prometheus and fields of a container.
 */
const OTHERS = ["scrape_configs", "env"];
const values = examples.filter(
  ({ value }) => value.apiVersion === undefined && value.spec === undefined && !OTHERS.some((key) => key in value),
);

/** Paths of fields that the schema does not know, which the API server would drop silently. */
function unknownFields(value: unknown, schema: StructuralSchema, path = ""): string[] {
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => unknownFields(item, schema.items ?? {}, `${path}[${index}]`));
  }
  if (!isRecord(value) || schema["x-kubernetes-preserve-unknown-fields"]) return [];
  return Object.entries(value).flatMap(([name, below]) => {
    const known = schema.properties?.[name] ?? schema.additionalProperties;
    if (known === undefined) return schema.properties === undefined ? [] : [`${path}.${name}`];
    return unknownFields(below, known, `${path}.${name}`);
  });
}

/** Returns an object in the form that the API server returns. */
const stored = (value: Json) => ({
  ...value,
  metadata: {
    namespace: "agents",
    uid: "00000000-0000-0000-0000-000000000000",
    resourceVersion: "1",
    generation: 1,
    creationTimestamp: "2026-01-02T03:04:05Z",
    ...(value.metadata as Json),
  },
});

test("pages contain whole Environments, parts of them, and values of the chart", () => {
  expect(whole.length).toBeGreaterThan(4);
  expect(parts.length).toBeGreaterThan(0);
  expect(values.length).toBeGreaterThan(0);
});

describe("an Environment on a page", () => {
  const { metadata: _, ...ours } = environmentSchema().properties ?? {};

  test.each(whole)("at $where is valid and has only known fields", ({ value }) => {
    const parsed = parseEnvironment(stored(value));
    expect(parsed.ok ? [] : parsed.problems).toEqual([]);
    expect(unknownFields(value.spec, ours.spec ?? {}, "spec")).toEqual([]);
  });

  test.each(parts)("shown in part, at $where, has only known fields", ({ value }) => {
    expect(unknownFields(value, { properties: ours })).toEqual([]);
  });

  test("with an unknown field is reported", () => {
    const wrong = { spec: { sessions: { warmth: 2, template: { spec: { anything: true } } } } };
    expect(unknownFields(wrong, { properties: ours })).toEqual([".spec.sessions.warmth"]);
  });
});

describe("values of the chart on a page", () => {
  const known = chartValues().map(({ key }) => key);
  const keysOf = (value: unknown, path = ""): string[] =>
    known.includes(path) || !isRecord(value)
      ? [path]
      : Object.entries(value).flatMap(([name, below]) => keysOf(below, path === "" ? name : `${path}.${name}`));

  test.each(values)("at $where exist", ({ value }) => {
    expect(keysOf(value).filter((key) => !known.includes(key))).toEqual([]);
  });
});
