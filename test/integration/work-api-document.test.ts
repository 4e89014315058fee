import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { startSimulator } from "../../simulator/simulator.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { WorkHttp } from "../../src/work/http.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import { goModuleFolder } from "../../testbed/workers/programs.ts";
import { Client } from "../simulator/client.ts";
import { type Exchange, RecordingProxy } from "../support/recording-proxy.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { LONG_MS } from "../work/setup.ts";

/** The vendor's OpenAPI document, in the module of the Go SDK that examples/worker-go requires. */
const MODULE = "github.com/anthropics/anthropic-sdk-go/v2";
const DOCUMENT = "scripts/mock-spec.json.gz";
const REFERENCE = "#/components/schemas/";

type Schema = Readonly<Record<string, unknown>>;
type Content = Readonly<Record<"application/json", { readonly schema: Schema }>>;
interface Parameter {
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly required: boolean;
  readonly schema: Schema;
}
interface Operation {
  readonly parameters: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Content };
  readonly responses: Readonly<Record<string, { readonly content?: Content }>>;
}
interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

/** Headers of any HTTP request, which no operation names. */
const TRANSPORT = ["host", "connection", "accept", "accept-encoding", "accept-language", "user-agent"];
const BODY = ["content-type", "content-length", "transfer-encoding"];
/** The document names the key's header for the whole API, and the worker's only for polls; workers send it with each call. */
const ANY_CALL = ["x-api-key", "anthropic-worker-id"];
const HEADERS = new Set([...TRANSPORT, ...BODY, ...ANY_CALL]);

/** The deployed service differs from the document here. The simulator and the client follow the service. */
const BODILESS_STOP = "POST stop: answers 204 without a body";

let document: Document;

beforeAll(async () => {
  const text = gunzipSync(await readFile(join(await goModuleFolder(MODULE), DOCUMENT))).toString("utf8");
  document = JSON.parse(text) as Document;
});

/** The operation that a request is for: the last literal part of its path, and its parameters. */
function operationOf({ method, path }: Exchange): Operation & { readonly name: string } {
  const { pathname } = new URL(path, "http://simulator");
  const given = pathname.split("/");
  for (const [template, operations] of Object.entries(document.paths)) {
    const parts = (template.split("?")[0] ?? "").split("/");
    const fits = parts.length === given.length && parts.every((part, i) => part.startsWith("{") || part === given[i]);
    const operation = operations[method.toLowerCase()];
    // `work/poll` also looks like an item with this id.
    if (!fits || operation === undefined || (parts.at(-1) === "{work_id}" && given.at(-1) === "poll")) continue;
    return { ...operation, name: `${method} ${parts.at(-1)}` };
  }
  throw new Error(`the document has no ${method} ${pathname}`);
}

/** Returns what is wrong with a value, with the path of each problem. */
function problemsOf(value: unknown, schema: Schema): string[] {
  const rooted = JSON.stringify({ ...schema, $defs: usedBy(schema) }).replaceAll(REFERENCE, "#/$defs/");
  const result = z.fromJSONSchema(JSON.parse(rooted) as Parameters<typeof z.fromJSONSchema>[0]).safeParse(value);
  return result.success ? [] : result.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
}

function usedBy(schema: Schema, used: Record<string, Schema> = {}): Record<string, Schema> {
  for (const [, name = ""] of JSON.stringify(schema).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
    const next = document.components.schemas[name];
    if (next === undefined || name in used) continue;
    used[name] = next;
    usedBy(next, used);
  }
  return used;
}

function requestProblems(exchange: Exchange): string[] {
  const { parameters, requestBody } = operationOf(exchange);
  const named = (place: Parameter["in"]) => parameters.filter((parameter) => parameter.in === place);
  const query = [...new URL(exchange.path, "http://simulator").searchParams];
  const problems = query.flatMap(([name, text]) => {
    const parameter = named("query").find((each) => each.name === name);
    if (parameter === undefined) return [`query parameter ${name} does not exist`];
    const isNumber = JSON.stringify(parameter.schema).includes('"integer"');
    return problemsOf(isNumber ? Number(text) : text, parameter.schema).map((each) => `${name} ${each}`);
  });
  const known = new Set(named("header").map(({ name }) => name.toLowerCase()));
  for (const name of Object.keys(exchange.headers)) {
    if (!known.has(name) && !HEADERS.has(name)) problems.push(`header ${name} does not exist`);
  }
  if (requestBody === undefined) return exchange.sent === "" ? problems : [...problems, "a body that is not expected"];
  if (exchange.sent === "" && requestBody.required) return [...problems, "no body"];
  return [...problems, ...problemsOf(JSON.parse(exchange.sent), requestBody.content["application/json"].schema)];
}

function answerProblems(exchange: Exchange): string[] {
  const { responses, name } = operationOf(exchange);
  const response = responses[exchange.status];
  if (exchange.status === 204 && exchange.answer === "") return [`${name}: answers 204 without a body`];
  const schema = response?.content?.["application/json"].schema;
  if (schema === undefined) return [`${name}: no answer has the status ${exchange.status}`];
  return problemsOf(JSON.parse(exchange.answer), schema).map((each) => `${name}: ${each}`);
}

async function meet() {
  const clock = new VirtualClock();
  const simulator = await startSimulator({ clock });
  const { id: environmentId, key } = simulator.createEnvironment();
  const proxy = await RecordingProxy.start(simulator.url);
  const http = new WorkHttp({ clock });
  const berth = new WorkApiClient({
    ...{ environmentId, workerId: "berth-0", http, clock, requestTimeoutMs: LONG_MS },
    ...{ baseUrl: proxy.url, key: () => key },
  });
  const plain = new Client({ url: proxy.url, environmentId, bearer: key, workerId: "plain" });
  return {
    ...{ clock, simulator, environmentId, proxy, berth, plain },
    async [Symbol.asyncDispose]() {
      await http.destroy();
      await proxy[Symbol.asyncDispose]();
      await simulator.close();
    },
  };
}

/** Waits until the proxy has each exchange whole. */
async function exchangesOf({ proxy }: { readonly proxy: RecordingProxy }): Promise<readonly Exchange[]> {
  await expect.poll(() => proxy.exchanges.length).toBe(proxy.arrivals.length);
  return proxy.exchanges;
}

test("Berth's requests, and the simulator's answers to them, are as the vendor's document says", async () => {
  await using met = await meet();
  const { berth, simulator, environmentId } = met;
  await berth.poll();
  await berth.stats();
  const ids = [1, 2, 3].map(() => simulator.enqueue(environmentId).id);
  await berth.stats();
  await berth.list();
  const [id = ""] = ids;
  await berth.poll({ blockMs: 999, reclaimOlderThanMs: 5_000 });
  await berth.ack(id);
  await berth.heartbeat(id, { expected: NO_HEARTBEAT, desiredTtlSeconds: 60 });
  await berth.heartbeat(id, { expected: NO_HEARTBEAT });
  await berth.find([id]);
  await berth.stop(id, { force: false });
  await berth.stop(id, { force: true });
  await berth.stop(id, { force: true });
  const apiKey = simulator.apiKey;
  await berth.update(id, { team: "research", gone: null }, { apiKey });
  await berth.retrieve(id, { apiKey });
  const exchanges = await exchangesOf(met);
  expect(exchanges.flatMap(requestProblems)).toEqual([]);
  expect([...new Set(exchanges.flatMap(answerProblems))]).toEqual([BODILESS_STOP]);
  const operations = Object.entries(document.paths).filter(([path]) =>
    path.includes("/environments/{environment_id}/work"),
  );
  const count = operations.flatMap(([, methods]) => Object.keys(methods)).length;
  expect(new Set(exchanges.map((exchange) => operationOf(exchange).name)).size, "operations").toBe(count);
});

test("the simulator refuses what the document forbids, with errors as it describes them", async () => {
  await using met = await meet();
  const { plain, simulator, environmentId } = met;
  const { id } = simulator.enqueue(environmentId);
  const statuses = async (...answers: Promise<{ readonly status: number }>[]) =>
    (await Promise.all(answers)).map(({ status }) => status);
  const user = plain.with({ apiKey: simulator.apiKey, bearer: undefined });
  const patch = (metadata: unknown) => user.request("POST", user.work(`/${id}`), { body: { metadata } });
  expect(
    await statuses(
      ...["0", "1001"].map((limit) => plain.list({ limit })),
      ...["0", "1000"].map((ms) => plain.pollRaw({ block_ms: ms })),
      plain.pollRaw({ reclaim_older_than_ms: 0 }),
      ...[{ a: 4 }, { "": "x" }, { ["k".repeat(65)]: "x" }, { a: "v".repeat(513) }].map(patch),
      patch(Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`k${index}`, "x"]))),
    ),
  ).toEqual(Array(10).fill(400));
  expect(await statuses(plain.list(), patch({ ["k".repeat(64)]: "v".repeat(512) }))).toEqual([200, 200]);
  const others = [plain.with({ bearer: "sk-ant-oat01-wrong" }).stats(), plain.retrieve(id), plain.ack("work_gone")];
  expect(await statuses(...others)).toEqual([401, 403, 404]);
  for (const status of [409, 429, 500, 503, 529]) {
    simulator.inject({ kind: "status", status, times: 1 });
    expect(await statuses(plain.stats())).toEqual([status]);
  }
  await plain.stop(id, true);
  expect(await statuses(plain.stop(id, true))).toEqual([409]);
  expect([...new Set((await exchangesOf(met)).flatMap(answerProblems))]).toEqual([BODILESS_STOP]);
});

test("the simulator also has the health checks that the deployed service offers", async () => {
  await using met = await meet();
  met.simulator.enqueue(met.environmentId, { type: "healthcheck" });
  expect((await met.berth.poll()).value?.data.type).toBe("healthcheck");
  expect((await exchangesOf(met)).flatMap(answerProblems)).toEqual([expect.stringContaining("GET poll: ")]);
});
