import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { isMalformed, isNotFound, KubeApiError } from "../../src/kube/errors.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import { errorOfAnswer, errorOfEvent } from "../../src/kube/status.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { Informer } from "../../src/watch/informer.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeApiServer, type SeenRequest, send, sendStatus } from "./api-server.ts";
import { until } from "./until.ts";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
let stop: AbortController;
let runs: Promise<void>[];

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access });
  stop = new AbortController();
  runs = [];
});

afterEach(async () => {
  stop.abort();
  await Promise.all(runs);
  await client.close();
  await server[Symbol.asyncDispose]();
});

const POD = "/api/v1/namespaces/agents/pods/a";
const ref = { namespace: "agents", name: "a" };
const pod: Pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "a", namespace: "agents" },
  spec: { containers: [] },
};
const MAX_RETRY_AFTER_MS = 60_000;
const isWatch = ({ query }: SeenRequest) => query.get("watch") === "true";

function start(): Informer<Pod> {
  const common = { client, resource: PODS, namespace: "agents", clock, logger: silentLogger, random: () => 0.5 };
  const informer = new Informer<Pod>(common);
  runs.push(informer.run(stop.signal));
  return informer;
}

/** The error of a call, which must be of a type that callers know. */
async function failure(call: Promise<unknown>): Promise<KubeApiError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(KubeApiError);
  return error as KubeApiError;
}

describe("a list without end", () => {
  test("is an error when a continue token repeats", async () => {
    server.scripts.push((_seen, response) => {
      send(response, 200, { items: [], metadata: { resourceVersion: "1", continue: "again" } });
      return true;
    });
    expect(isMalformed(await failure(client.listAll(PODS, { namespace: "agents" })))).toBe(true);
    expect(server.requests).toHaveLength(2);
  });

  test("ends after more pages than any cluster has, even if each token is new", async () => {
    let page = 0;
    server.scripts.push((_seen, response) => {
      page += 1;
      send(response, 200, { items: [], metadata: { resourceVersion: "1", continue: `page-${page}` } });
      return true;
    });
    expect(isMalformed(await failure(client.listAll(PODS, { namespace: "agents" })))).toBe(true);
    expect(page).toBe(4_001);
  });
});

describe("a malformed answer", () => {
  test.each([
    ["items that are null", { items: [null] }],
    ["items without metadata", { items: [{}] }],
    ["items without a name", { items: [{ metadata: { uid: "u" } }] }],
    ["a name that is a number", { items: [{ metadata: { name: 5 } }] }],
    ["a uid that is an object", { items: [{ metadata: { name: "a", uid: {} } }] }],
    ["labels that are a list", { items: [{ metadata: { name: "a", labels: ["x"] } }] }],
    ["annotations that are numbers", { items: [{ metadata: { name: "a", annotations: { x: 5 } } }] }],
    ["metadata that is a text", { items: [], metadata: "x" }],
    ["a continue token that is an object", { items: [], metadata: { continue: {} } }],
  ])("to a list: %s", async (_name, body) => {
    server.scripts.push((_seen, response) => {
      send(response, 200, body);
      return true;
    });
    expect(isMalformed(await failure(client.listAll(PODS, { namespace: "agents" })))).toBe(true);
  });

  test.each([
    ["a Status with status 200", { kind: "Status", metadata: {}, status: "Failure", code: 404, reason: "NotFound" }],
    ["another object", { ...pod, metadata: { ...pod.metadata, name: "b", uid: "u" } }],
    ["an object without uid", pod],
    ["an object whose uid is empty", { ...pod, metadata: { ...pod.metadata, uid: "" } }],
  ])("to a live read: %s is neither the object nor its absence", async (_name, body) => {
    server.scripts.push((_seen, response) => {
      send(response, 200, body);
      return true;
    });
    const error = await failure(client.get(PODS, ref));
    expect(isMalformed(error)).toBe(true);
    expect(isNotFound(error)).toBe(false);
  });
});

test("reads an answer about one object only up to the largest size of an object", async () => {
  let sent = 0;
  server.scripts.push((_seen, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    const piece = Buffer.alloc(1_000_000, " ");
    const more = () => {
      while (!response.destroyed && response.write(piece)) sent += piece.length;
      sent += piece.length;
    };
    response.on("drain", more);
    more();
    return true;
  });
  const error = await failure(client.patch(PODS, ref, {}, { type: "merge" }));
  expect(error.message).toContain("longer than 16777216 bytes");
  expect(error.maybeApplied).toBe(true);
  expect(sent).toBeLessThan(64_000_000);
});

test("requests large objects in smaller pages, so that a page fits an operator's memory", async () => {
  const filler = "x".repeat(1_000_000);
  const numbers = Array.from({ length: 60 }, (_, index) => index);
  for (const index of numbers) {
    const name = `large-${String(index).padStart(2, "0")}`;
    const metadata = { name, namespace: "agents", uid: name, annotations: { filler } };
    server.put(`/api/v1/namespaces/agents/pods/${name}`, { metadata });
  }
  let largest = 0;
  const keep = (item: Pod) => {
    largest = Math.max(largest, Number(item.metadata.annotations?.["filler"]?.length));
    return { metadata: { name: item.metadata.name } } as Pod;
  };
  const { items } = await client.listAll(PODS, { namespace: "agents" }, { keep });
  expect(items.map(({ metadata }) => metadata.name)).toEqual(numbers.map((i) => `large-${String(i).padStart(2, "0")}`));
  expect(largest).toBe(filler.length);
  const pages = server.requests.map(({ query }) => Number(query.get("limit")));
  // The first page was aborted, and not requested again with the same size.
  expect(pages.slice(0, 2)).toEqual([250, 31]);
  const tooMany = pages.filter((limit) => limit > 16).length;
  expect(tooMany).toBeGreaterThan(0);
  expect(pages.length - tooMany).toBeLessThan(20);
});

test("fails a list with an object that exceeds any page", async () => {
  server.put("/api/v1/namespaces/agents/pods/a", {
    metadata: { name: "a", namespace: "agents", uid: "u", annotations: { filler: "x".repeat(17_000_000) } },
  });
  const error = await failure(client.listAll(PODS, { namespace: "agents" }));
  expect(error.message).toContain("longer than 16777216 bytes");
  expect(server.requests.at(-1)?.query.get("limit")).toBe("1");
});

describe("a Status", () => {
  const answer = (body: unknown, headers = {}) => ({ status: 429, headers, body: Buffer.from(JSON.stringify(body)) });

  test.each([
    [{ "retry-after": "999999999999999999999" }, {}],
    [{ "retry-after": "86400" }, {}],
    [{}, { details: { retryAfterSeconds: 1e308 } }],
  ])("with an endless delay (%j, %j) leads to a retry within a minute", (headers, more) => {
    expect(errorOfAnswer("get pods", answer({ kind: "Status", ...more }, headers), false).retryAfterMs).toBe(
      MAX_RETRY_AFTER_MS,
    );
  });

  test.each([
    [{ "retry-after": "-1" }, {}],
    [{ "retry-after": "Wed, 21 Oct 2065 07:28:00 GMT" }, {}],
    [{}, { details: { retryAfterSeconds: -5 } }],
    [{}, { details: { retryAfterSeconds: "5" } }],
  ])("with an invalid delay (%j, %j) requests none", (headers, more) => {
    const error = errorOfAnswer("get pods", answer({ kind: "Status", ...more }, headers), false);
    expect(error.retryAfterMs).toBeUndefined();
  });

  test("with any values in its fields leads to an error whose fields have their types", () => {
    const fields = fc.record(
      { message: fc.jsonValue(), reason: fc.jsonValue(), code: fc.jsonValue(), details: fc.jsonValue() },
      { requiredKeys: [] },
    );
    const details = fc.record(
      { name: fc.jsonValue(), causes: fc.jsonValue(), retryAfterSeconds: fc.jsonValue() },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fields, fc.option(details, { nil: undefined }), (some, inner) => {
        const status = { kind: "Status", ...some, ...(inner ? { details: inner } : {}) };
        for (const error of [errorOfAnswer("x", answer(status), true), errorOfEvent("x", status)]) {
          expect(typeof error.message).toBe("string");
          expect(typeof error.status).toBe("number");
          expect(typeof error.reason).toBe("string");
          for (const cause of error.details?.causes ?? []) expect(typeof (cause.reason ?? "")).toBe("string");
        }
      }),
    );
  });
});

describe("a reflector", () => {
  test.each([
    ["causes that are no list", { details: { causes: "x" } }],
    ["malformed causes", { details: { causes: [null, 5] } }],
    ["a message that is an object", { message: {} }],
    ["a code that is a text", { code: "410" }],
    ["details that are a list", { details: [1] }],
  ])("survives a Status with %s, for a refused watch and as an ERROR event", async (_name, more) => {
    const status = { kind: "Status", status: "Failure", reason: "X", code: 504, ...more };
    let told = 0;
    server.scripts.push((seen, response) => {
      if (!isWatch(seen) || told > 1) return false;
      told += 1;
      if (told === 1) send(response, 504, status);
      else response.end(`${JSON.stringify({ type: "ERROR", object: status })}\n`);
      return true;
    });
    const informer = start();
    await until(clock, () => server.openWatches === 1);
    server.put(POD, pod);
    await until(clock, () => informer.list().length === 1);
  });

  test.each([
    ["a bookmark", { type: "BOOKMARK", object: { metadata: { resourceVersion: "7" } } }],
    ["a change", { type: "MODIFIED", object: { ...pod, metadata: { ...pod.metadata, resourceVersion: "7" } } }],
    ["a bookmark without metadata", { type: "BOOKMARK", object: {} }],
    ["a change of an object without a name", { type: "ADDED", object: { metadata: {} } }],
  ])("does not retry in a hot loop when watches send %s and end", async (_name, event) => {
    server.scripts.push((seen, response) => {
      if (!isWatch(seen)) return false;
      response.end(`${JSON.stringify(event)}\n`);
      return true;
    });
    start();
    const from = clock.monotonic();
    await until(clock, () => server.requests.filter(isWatch).length >= 10, 500);
    expect(clock.monotonic() - from).toBeGreaterThan(25_000);
  });

  test("retries within about a minute, whatever Retry-After contains", async () => {
    let refused = 0;
    server.scripts.push((seen, response) => {
      if (!isWatch(seen) || refused > 0) return false;
      refused += 1;
      sendStatus(response, 429, "TooManyRequests", "busy", { headers: { "retry-after": "31536000" } });
      return true;
    });
    start();
    const from = clock.monotonic();
    await until(clock, () => server.openWatches === 1, 1_000);
    expect(clock.monotonic() - from).toBeLessThan(2 * MAX_RETRY_AFTER_MS);
  });
});
