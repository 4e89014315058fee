import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { BUSY_PORT } from "../../demo/node.ts";
import { BATCH, fillIn, fillSample, RESEARCH, type SampleValues } from "../../demo/sample.ts";
import { environmentResource } from "../../src/api/environment.ts";

const VALUES: SampleValues = {
  NAMESPACE: "berth-demo",
  ENVIRONMENT_ID: "env_011CZkZ9X2dpNyB7HsEFoRfW",
  WORK_API: "http://127.0.0.1:1234",
  NODE: "demo-node",
  WORKER: "/some where/it's/worker.mjs",
  MAX: 7,
};
const PARKING: SampleValues = { ...VALUES, WARM: 3, PARKING: "Shell" };

/** Fields that the API server adds. */
const FROM_SERVER = { uid: "u", generation: 1, resourceVersion: "1", creationTimestamp: "2026-01-01T00:00:00Z" };

const hole = (name: string) => ["${", name, "}"].join("");

const CASES = [
  [RESEARCH, PARKING],
  [BATCH, VALUES],
] as const;

describe.each(CASES)("the sample Environment $name", (sample, values) => {
  test("is valid with its placeholders filled in, with numbers as numbers", async () => {
    const filled = await fillSample(sample, values);
    expect(filled.metadata).toEqual({ name: sample.name, namespace: "berth-demo" });
    const { spec } = environmentResource.parse({ ...filled, metadata: { ...filled.metadata, ...FROM_SERVER } });
    expect(spec.api).toMatchObject({ baseUrl: VALUES.WORK_API, keySecretRef: { name: sample.keySecret } });
    const mode = sample.mode === "sessions" ? spec.sessions : spec.workers;
    expect(mode).toMatchObject(sample.mode === "sessions" ? { warm: 3, maxConcurrent: 7 } : { maxReplicas: 7 });
    const [container] = mode?.template.spec.containers ?? [];
    expect(container).toMatchObject({ command: ["node", VALUES.WORKER] });
  });

  test("has a value for every placeholder, and a placeholder for every value", async () => {
    const text = await readFile(sample.file, "utf8");
    const named = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    expect(new Set(named)).toEqual(new Set(Object.keys(values)));
    expect(JSON.stringify(fillIn(text, values))).not.toContain("${");
  });
});

test("the sample with always-on workers scales down within seconds, and to zero", async () => {
  const { spec } = (await fillSample(BATCH, VALUES)) as never as { spec: Record<string, Record<string, unknown>> };
  expect(spec["workers"]).toMatchObject({
    minReplicas: 0,
    behavior: { scaleDown: { stabilizationWindowSeconds: 5 } },
    // Simulated workers listen on this port too.
    busyProbe: { httpGet: { port: BUSY_PORT } },
  });
});

describe("placeholders", () => {
  test("values cannot escape from their scalar", () => {
    const filled = fillIn(`metadata: {name: '${hole("NODE")}'}`, { ...VALUES, NODE: "a: [b\n#'\"" });
    expect(filled.metadata.name).toBe("a: [b\n#'\"");
  });

  test("an unknown placeholder is an error that names it", () => {
    expect(() => fillIn(`metadata: {name: '${hole("NOD")}'}`, VALUES)).toThrow(hole("NOD"));
  });
});
