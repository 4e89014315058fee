import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { environmentSchema, PRINTER_COLUMNS } from "../../src/api/crd-manifest.ts";
import { type Environment, parseEnvironment } from "../../src/api/environment.ts";
import type { StructuralSchema } from "../../src/api/structural-schema.ts";
import { ApiError, type ApiObject } from "../../testbed/cluster/api.ts";
import { type Json, parsed, podTemplate, sessionsSpec, workersSpec } from "../api/environments.ts";
import { RULE_CASES } from "../api/rule-cases.ts";
import { useCluster } from "../support/cluster.ts";

const EXAMPLES = new URL("../../examples/environments/", import.meta.url);
const CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/environments.berth.dev";
const GROUP_PATH = "/apis/berth.dev/v1alpha1";
/** The API server publishes OpenAPI some seconds after a CRD changes, without a signal. */
const PUBLISH_TIMEOUT_MS = 30_000;

const cluster = useCluster();
let namespace = "";
let collection = "";
let made = 0;

beforeAll(async () => {
  namespace = await cluster.createNamespace("crd");
  collection = `${GROUP_PATH}/namespaces/${namespace}/environments`;
});

afterAll(async () => {
  await cluster.api.delete(collection);
});

describe("the API server", () => {
  test("accepts the CRD without a violation", async () => {
    const crd = await cluster.api.get<{ status: { conditions: { type: string; status: string }[] } }>(CRD_PATH);
    const conditions = Object.fromEntries(crd.status.conditions.map(({ type, status }) => [type, status]));
    expect(conditions).toMatchObject({ Established: "True", NamesAccepted: "True" });
    expect(conditions.NonStructuralSchema ?? "False").toBe("False");
  });

  test("has the short name benv and the category berth", async () => {
    const { resources } = await cluster.api.get<{ resources: Json[] }>(GROUP_PATH);
    expect(resources.map(({ name }) => name).sort()).toEqual(["environments", "environments/status"]);
    expect(resources).toContainEqual(
      expect.objectContaining({ name: "environments", shortNames: ["benv"], categories: ["berth"], namespaced: true }),
    );
  });

  test.each([
    ["sessions", sessionsSpec()],
    ["workers", workersSpec()],
    ["workers with half a behavior", workersSpec({ behavior: { scaleDown: { stabilizationWindowSeconds: 9 } } })],
    ["workers with a busy probe", workersSpec({ busyProbe: { httpGet: { port: 9000 } } })],
  ])("applies the same defaults as parseEnvironment for %s", async (_, spec) => {
    const answer = await create(spec, { dryRun: false });
    const ours = parsed({ ...answer, spec } as Json);
    expect(answer.spec).toEqual(ours.spec);
  });

  test("keeps unknown template fields at every level, and nulls", async () => {
    const template = {
      metadata: { labels: { a: "b" }, futureMetadata: { x: [1] } },
      spec: {
        futureSpec: { deep: [{ x: null }] },
        containers: [
          {
            name: "worker",
            futureContainer: true,
            env: [{ name: "A", futureEnv: 1, valueFrom: { futureSource: { key: "k" } } }],
          },
        ],
      },
    };
    const answer = await create(sessionsSpec({ template }));
    expect((answer.spec.sessions as Json).template).toEqual(template);
  });

  test.each(RULE_CASES)("by CEL: $name", async ({ refused, accepted, message, field }) => {
    await create(accepted);
    const words = await refusal(create(refused));
    expect(words).toContain(`${field}: Invalid value`);
    expect(words).toContain(message);
  });

  test("refuses a name that is too long for Pods and labels", async () => {
    await create(sessionsSpec(), { name: "a".repeat(46) });
    expect(await refusal(create(sessionsSpec(), { name: "a".repeat(47) }))).toContain("choose a shorter one");
  });

  test("does not repeat a key that was entered instead of an id or a name", async () => {
    const key = "sk-ant-oat01-Zq9zq";
    const baseUrl = `https://user:${key}@api.example.com`;
    const spec = sessionsSpec(
      {},
      { environmentId: key, api: { baseUrl, workspaceId: key, keySecretRef: { name: key } } },
    );
    const words = await refusal(create(spec));
    for (const field of ["environmentId", "api.baseUrl", "api.workspaceId", "api.keySecretRef.name"]) {
      expect(words).toContain(`spec.${field}: `);
    }
    expect(words).not.toContain("Zq9zq");
  });

  test.each([
    ["of the spec", sessionsSpec({}, { pausd: true }), "spec.pausd"],
    ["of sessions", sessionsSpec({ maxConcurent: 4 }), "spec.sessions.maxConcurent"],
    ["of the api", sessionsSpec({}, { api: { keySecretRef: { name: "k" }, url: "x" } }), "spec.api.url"],
    ["of the template", sessionsSpec({ template: { ...podTemplate(), sepc: {} } }), "spec.sessions.template.sepc"],
  ])("refuses a misspelled field %s under strict validation", async (_, spec, field) => {
    expect(await refusal(create(spec))).toContain(`unknown field "${field}"`);
  });

  test("accepts the largest template within the limits, so that no rule exceeds its cost budget", async () => {
    const many = <T>(count: number, make: (index: number) => T) =>
      Array.from({ length: count }, (_, index) => make(index));
    const map = (value: string) =>
      Object.fromEntries(many(128, (index) => [`example.com/${"k".repeat(40)}-${index}`, value]));
    const env = many(256, (index) => ({ name: `ANTHROPIC_ENVIRONMENT_${index}`, value: "x" }));
    const template = {
      metadata: { labels: map("v".repeat(63)), annotations: map("v".repeat(1000)) },
      spec: { containers: many(32, (index) => ({ name: `container-${index}`, image: "worker:1", env })) },
    };
    await create(sessionsSpec({ template }));
    await create(workersSpec({ template }));
  });

  test.each(readdirSync(EXAMPLES))("accepts the example %s, and a Pod of its template", async (file) => {
    const { spec } = parse(await readFile(new URL(file, EXAMPLES), "utf8")) as { spec: Json };
    const answer = await create(spec);
    const { template } = (answer.spec.sessions ?? answer.spec.workers) as { template: Json };
    const pods = `/api/v1/namespaces/${namespace}/pods?dryRun=All&fieldValidation=Strict`;
    await cluster.api.create(pods, { apiVersion: "v1", kind: "Pod", ...template, metadata: { name: "example" } });
  });

  test("refuses two containers with one name", async () => {
    const container = { name: "worker", image: "worker:1" };
    const spec = sessionsSpec({ template: { spec: { containers: [container, container] } } });
    expect(await refusal(create(spec))).toMatch(/spec\.containers\[1\]: Duplicate value: .*"name":"worker"/);
  });

  test.each([
    ["the environment's id", { environmentId: "env_2" }, "create another Environment for another id"],
    [
      "the API's address",
      { api: { baseUrl: "https://a.test" }, network: { policy: "None" } },
      "baseUrl cannot be changed",
    ],
    [
      "sessions for workers",
      { sessions: null, workers: { maxReplicas: 1, template: podTemplate() } },
      "sessions and workers cannot be exchanged",
    ],
  ])("refuses a change of %s", async (_, change, message) => {
    const { name } = (await create(sessionsSpec(), { dryRun: false })).metadata;
    expect(await refusal(patch(`${collection}/${name}`, { spec: change }))).toContain(message);
  });

  test("accepts a change of everything else, and increments the generation", async () => {
    const { name, generation } = (await create(sessionsSpec(), { dryRun: false })).metadata;
    const change = {
      paused: true,
      sessions: { warm: 3 },
      api: { otherPollers: 1 },
      network: { egress: { cidrs: [] } },
    };
    const changed = await patch(`${collection}/${name}`, { spec: change });
    expect(changed.spec).toMatchObject(change);
    expect(changed.metadata.generation).toBe(Number(generation) + 1);
  });

  test("writes the status only through its subresource, without a new generation", async () => {
    const { name, generation } = (await create(sessionsSpec(), { dryRun: false })).metadata;
    const path = `${collection}/${name}`;
    expect((await patch(path, { status: { observedGeneration: 7 } })).status).toEqual({ observedGeneration: -1 });
    const written = await patch(`${path}/status`, { status: STATUS, spec: { paused: true } });
    expect(written.status).toEqual(STATUS);
    expect(written.spec.paused).toBe(false);
    expect(written.metadata.generation).toBe(generation);
    expect(parsed(written as unknown as Json).status).toEqual(STATUS);
  });

  test("returns an Environment that parseEnvironment accepts completely", async () => {
    const { name } = (await create(sessionsSpec(), { dryRun: false })).metadata;
    const read = await cluster.api.get(`${collection}/${name}`);
    expect(parseEnvironment(read)).toEqual({ ok: true, environment: read });
  });

  test("shows mode, queue, warm, running, max, ready, reason and age as columns", async () => {
    const { name } = (await create(sessionsSpec(), { dryRun: false })).metadata;
    await patch(`${collection}/${name}/status`, { status: STATUS });
    const { columnDefinitions, rows } = await asTable(`${collection}/${name}`);
    const shown = columnDefinitions.map(({ name, priority }, index) => ({
      name,
      priority,
      cell: rows[0]?.cells[index],
    }));
    const wide = shown.filter(({ priority }) => priority > 0).map(({ name, cell }) => [name, cell]);
    const always = shown.filter(({ priority }) => priority === 0).map(({ name, cell }) => [name, cell]);
    expect(always).toEqual([
      ["Name", name],
      ["Mode", "Sessions"],
      ["Queue", 4],
      ["Warm", 2],
      ["Running", 3],
      ["Sleeping", 4],
      ["Max", 5],
      ["Ready", "False"],
      ["Reason", "KeyRejected"],
      ["Age", expect.stringMatching(/^\d+s$/)],
    ]);
    expect(wide).toEqual([
      ["Pending", 1],
      ["Workers", 6],
      ["Busy", 5],
      ["Environment", "env_1"],
      ["Message", "the Work API answers 401"],
    ]);
    expect(columnDefinitions.slice(1).map(({ description }) => description)).toEqual(
      PRINTER_COLUMNS.map(({ description }) => description),
    );
  });

  test("publishes a description for every field for kubectl explain", async () => {
    const published = await eventually(async () => {
      const { components } = await cluster.api.get<OpenApi>(`/openapi/v3${GROUP_PATH}`);
      return components.schemas["dev.berth.v1alpha1.Environment"];
    });
    const paths = fieldPaths(environmentSchema()).filter((path) => path !== "metadata");
    const missing = paths.filter((path) => !descriptionAt(published, path));
    expect(paths.length).toBeGreaterThan(100);
    expect(missing).toEqual([]);
  });
});

const STATUS = {
  observedGeneration: 1,
  mode: "Sessions",
  max: 5,
  queue: { depth: 4, pending: 1, oldestQueuedAt: "2026-01-02T03:04:05Z", workersPolling: 1 },
  sessions: { warm: 2, preparing: 0, running: 3, stopping: 0, sleeping: 4, ended: 7 },
  workers: { desired: 7, replicas: 6, ready: 6, busy: 5 },
  conditions: [
    {
      type: "Ready",
      status: "False",
      reason: "KeyRejected",
      message: "the Work API answers 401",
      lastTransitionTime: "2026-01-02T03:04:05Z",
      observedGeneration: 1,
    },
  ],
};

interface OpenApi {
  readonly components: { readonly schemas: Record<string, StructuralSchema> };
}

interface Table {
  readonly columnDefinitions: { readonly name: string; readonly priority: number; readonly description: string }[];
  readonly rows: { readonly cells: unknown[] }[];
}

/** Sends the request as a user would: with strict validation, and by default as a dry run. */
async function create(spec: Json, { name = `e${made++}`, dryRun = true } = {}): Promise<Environment & { spec: Json }> {
  const query = new URLSearchParams({ fieldValidation: "Strict", ...(dryRun ? { dryRun: "All" } : {}) });
  return cluster.api.create(`${collection}?${query}`, {
    apiVersion: "berth.dev/v1alpha1",
    kind: "Environment",
    metadata: { name },
    spec,
  });
}

async function patch(path: string, body: Json): Promise<Environment & { spec: Json }> {
  return cluster.api.request("PATCH", path, { body, contentType: "application/merge-patch+json" });
}

/** The error message of a refused request. Fails when the request is accepted. */
async function refusal(attempt: Promise<ApiObject>): Promise<string> {
  try {
    await attempt;
  } catch (error) {
    if (error instanceof ApiError && (error.status === 422 || error.status === 400)) return error.message;
    throw error;
  }
  throw new Error("the API server took what it should refuse");
}

async function asTable(path: string): Promise<Table> {
  const agent = new Agent({ connect: { ca: await readFile(cluster.caFile, "utf8") } });
  try {
    const { body } = await request(cluster.server + path, {
      dispatcher: agent,
      headers: {
        authorization: `Bearer ${cluster.adminToken}`,
        accept: "application/json;as=Table;v=v1;g=meta.k8s.io",
      },
    });
    return (await body.json()) as Table;
  } finally {
    await agent.close();
  }
}

/** Retries until there is an answer: discovery and OpenAPI follow a CRD after a moment, without an event. */
async function eventually<T>(ask: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + PUBLISH_TIMEOUT_MS;
  for (;;) {
    const answer = await ask().catch((error: unknown) => {
      if (error instanceof ApiError && error.status === 404 && performance.now() < deadline) return undefined;
      throw error;
    });
    if (answer !== undefined) return answer;
    if (performance.now() > deadline) throw new Error("not published in time");
    await delay(50);
  }
}

/** The paths of all fields, in the format of `kubectl explain`. */
function fieldPaths(schema: StructuralSchema): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, child]) => [
    name,
    ...fieldPaths(child.items ?? child).map((below) => `${name}.${below}`),
  ]);
}

function descriptionAt(schema: StructuralSchema, path: string): string | undefined {
  const found = path
    .split(".")
    .reduce<StructuralSchema | undefined>((at, name) => (at?.items ?? at)?.properties?.[name], schema);
  return found?.description;
}
