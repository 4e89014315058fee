import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { fillIn, SAMPLE_FILE, type SampleValues, sampleEnvironment } from "../../demo/sample.ts";
import { environmentResource } from "../../src/api/environment.ts";

const VALUES: SampleValues = {
  NAMESPACE: "berth-demo",
  ENVIRONMENT_ID: "env_011CZkZ9X2dpNyB7HsEFoRfW",
  WORK_API: "http://127.0.0.1:1234",
  NODE: "demo-node",
  WORKER: "/some where/it's/worker.mjs",
  WARM: 3,
  MAX: 7,
};

/** What the API server adds. */
const FROM_SERVER = { uid: "u", generation: 1, resourceVersion: "1", creationTimestamp: "2026-01-01T00:00:00Z" };

const hole = (name: string) => ["${", name, "}"].join("");

describe("the sample Environment", () => {
  test("is valid with its placeholders filled in, numbers as numbers", async () => {
    const sample = await sampleEnvironment(VALUES);
    expect(sample.metadata).toEqual({ name: "demo", namespace: "berth-demo" });
    const { spec } = environmentResource.parse({ ...sample, metadata: { ...sample.metadata, ...FROM_SERVER } });
    expect(spec.sessions).toMatchObject({ warm: 3, maxConcurrent: 7 });
    expect(spec.api).toMatchObject({ baseUrl: VALUES.WORK_API, keySecretRef: { name: "demo-key" } });
    const [container] = spec.sessions?.template.spec.containers ?? [];
    expect(container).toMatchObject({ command: ["node", VALUES.WORKER] });
  });

  test("has no placeholder that nobody fills in, and every value has one", async () => {
    const text = await readFile(SAMPLE_FILE, "utf8");
    const named = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    expect(new Set(named)).toEqual(new Set(Object.keys(VALUES)));
    expect(JSON.stringify(fillIn(text, VALUES))).not.toContain("${");
  });

  test("values cannot break out of their place", () => {
    const filled = fillIn(`metadata: {name: '${hole("NODE")}'}`, { ...VALUES, NODE: "a: [b\n#'\"" });
    expect(filled.metadata.name).toBe("a: [b\n#'\"");
  });

  test("a placeholder that is unknown is an error that names it", () => {
    expect(() => fillIn(`metadata: {name: '${hole("NOD")}'}`, VALUES)).toThrow(hole("NOD"));
  });
});
