import { getEventListeners } from "node:events";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { isForbidden, isGone, KubeApiError } from "../../src/kube/errors.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import { WATCH_INACTIVITY_MS, type WatchEvent } from "../../src/kube/watch.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeApiServer, sendStatus } from "./api-server.ts";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access, clock });
});

afterEach(async () => {
  await client.close();
  await server[Symbol.asyncDispose]();
});

const path = (name: string) => `/api/v1/namespaces/agents/pods/${name}`;
const pod = (name: string, note = ""): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "agents", annotations: { note } },
  spec: { containers: [] },
});

/** Starts a watch and collects its events. */
function watching(resourceVersion = server.resourceVersion) {
  const stop = new AbortController();
  const events: WatchEvent<Pod>[] = [];
  const ended = (async () => {
    const query = { namespace: "agents", resourceVersion, timeoutSeconds: 300 };
    for await (const event of client.watch(PODS, query, { signal: stop.signal })) events.push(event);
  })();
  // The test checks the result later. Until then, a rejection must not count as unhandled.
  ended.catch(() => {});
  const names = () => events.map(({ type, object }) => `${type} ${object.metadata.name ?? ""}`.trim());
  return { stop, events, ended, names };
}

async function failure(ended: Promise<void>): Promise<KubeApiError> {
  const error = await ended.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof KubeApiError) return error;
  throw new Error(`expected a KubeApiError, got ${String(error)}`);
}

test("requests bookmarks and a timeout, and yields changes after its version", async () => {
  const rv = server.resourceVersion;
  server.put(path("a"), pod("a"));
  const { stop, ended, names } = watching(rv);
  await server.until(() => server.openWatches === 1);
  server.put(path("a"), pod("a", "2"));
  server.sendBookmarks();
  server.remove(path("a"));
  while (names().length < 4) await clock.settle();
  expect(names()).toEqual(["ADDED a", "MODIFIED a", "BOOKMARK", "DELETED a"]);
  expect(Object.fromEntries(server.requests[0]?.query ?? [])).toEqual({
    watch: "true",
    allowWatchBookmarks: "true",
    resourceVersion: rv,
    timeoutSeconds: "300",
  });
  stop.abort();
  await ended;
  await server.until(() => server.openWatches === 0);
});

test("keeps characters that are split across chunks", async () => {
  const { ended, events } = watching();
  await server.until(() => server.openWatches === 1);
  const bytes = Buffer.from(`${JSON.stringify({ type: "ADDED", object: pod("a", "𝒳é".repeat(50)) })}\n`);
  for (const byte of bytes) {
    server.writeToWatches(Buffer.from([byte]));
    await clock.settle();
  }
  server.endWatches();
  await ended;
  expect(events.map(({ object }) => object.metadata.annotations?.note)).toEqual(["𝒳é".repeat(50)]);
});

test("ends without an error when the server ends it", async () => {
  const { ended } = watching();
  await server.until(() => server.openWatches === 1);
  server.endWatches();
  await expect(ended).resolves.toBeUndefined();
});

test("fails as gone for a version that is too old, in the stream or as a status", async () => {
  const rv = server.resourceVersion;
  server.put(path("a"), pod("a"));
  server.compact();
  expect(isGone(await failure(watching(rv).ended))).toBe(true);
  server.scripts.push((_seen, response) => {
    sendStatus(response, 410, "Gone", "too old");
    return true;
  });
  expect(isGone(await failure(watching(rv).ended))).toBe(true);
});

test("fails for any other ERROR event", async () => {
  const { ended } = watching();
  await server.until(() => server.openWatches === 1);
  const object = { kind: "Status", code: 500, reason: "InternalError", message: "etcd is away" };
  server.writeToWatches(`${JSON.stringify({ type: "ERROR", object })}\n`);
  const error = await failure(ended);
  expect([error.status, error.reason, isGone(error)]).toEqual([500, "InternalError", false]);
  expect(error.message).toContain("etcd is away");
});

test.each([
  ["an incomplete line", '{"type":"ADDED","object":{"metada\n'],
  ["an event of an unknown kind", '{"type":"RENAMED","object":{"metadata":{}}}\n'],
  ["a page of HTML", "<html><body>502</body></html>\n"],
])("fails for %s, after the events before it", async (_name, text) => {
  const { ended, names } = watching();
  await server.until(() => server.openWatches === 1);
  server.writeToWatches(`${JSON.stringify({ type: "ADDED", object: pod("a") })}\n${text}`);
  expect((await failure(ended)).status).toBe(0);
  expect(names()).toEqual(["ADDED a"]);
});

test("fails when the stream ends within an event", async () => {
  const { ended } = watching();
  await server.until(() => server.openWatches === 1);
  server.writeToWatches('{"type":"ADDED","object":{"metadata":{"name":"a"}}}');
  server.endWatches();
  expect((await failure(ended)).message).toContain("ended within an event");
});

test("fails when the connection is cut", async () => {
  const { ended } = watching();
  await server.until(() => server.openWatches === 1);
  server.cut();
  expect((await failure(ended)).status).toBe(0);
});

test("fails with the server's error when it is refused", async () => {
  server.scripts.push((_seen, response) => {
    sendStatus(response, 403, "Forbidden", "cannot watch pods");
    return true;
  });
  const error = await failure(watching().ended);
  expect(isForbidden(error)).toBe(true);
  expect(error.message).toBe("watch pods agents: cannot watch pods");
});

test("fails on a silent connection, but not while bookmarks arrive", async () => {
  const { ended, names } = watching();
  await server.until(() => server.openWatches === 1);
  await clock.settle();
  for (let minute = 1; minute <= 5; minute += 1) {
    await clock.advance(60_000);
    server.sendBookmarks();
    while (names().length < minute) await clock.settle();
  }
  await clock.advance(WATCH_INACTIVITY_MS - 1);
  expect(server.openWatches).toBe(1);
  await clock.advance(1);
  const error = await failure(ended);
  expect([error.status, error.message]).toEqual([0, expect.stringContaining("the connection is dead")]);
  await server.until(() => server.openWatches === 0);
});

test("gives up when the server accepts the connection and never answers", async () => {
  server.scripts.push(() => true);
  const { ended } = watching();
  await server.until(() => server.requests.length === 1);
  await clock.advance(30_000);
  expect((await failure(ended)).status).toBe(0);
});

test("ends without an error when it is aborted while opening", async () => {
  server.scripts.push(() => true);
  const { stop, ended } = watching();
  await server.until(() => server.requests.length === 1);
  stop.abort();
  await expect(ended).resolves.toBeUndefined();
});

test("ends with its connection when the caller leaves the loop", async () => {
  server.put(path("a"), pod("a"));
  const stop = new AbortController();
  for await (const event of client.watch(
    PODS,
    { namespace: "agents", resourceVersion: "100" },
    { signal: stop.signal },
  )) {
    expect(event.type).toBe("ADDED");
    break;
  }
  await server.until(() => server.openWatches === 0);
  expect(clock.pendingTimers).toBe(0);
});

test("does not use the connections of calls", async () => {
  const watches = Array.from({ length: 100 }, () => watching());
  await server.until(() => server.openWatches === 100);
  await client.list(PODS, { namespace: "agents" });
  for (const { stop } of watches) stop.abort();
  await Promise.all(watches.map(({ ended }) => ended));
});

test("removes its listeners from signals that outlive it", async () => {
  const combined: AbortSignal[] = [];
  const any = AbortSignal.any.bind(AbortSignal);
  const spy = vi.spyOn(AbortSignal, "any").mockImplementation((signals) => {
    const signal = any(signals);
    combined.push(signal);
    return signal;
  });
  try {
    const { stop, ended } = watching();
    await server.until(() => server.openWatches === 1);
    const heard = (signal: AbortSignal) => getEventListeners(signal, "abort").length;
    expect([stop.signal, ...combined].some((signal) => heard(signal) > 0)).toBe(true);
    server.endWatches();
    await ended;
    // Node keeps a combined signal and its listeners while one of its sources may still abort.
    expect(stop.signal.aborted).toBe(false);
    expect([stop.signal, ...combined].map(heard)).toEqual([0, ...combined.map(() => 0)]);
  } finally {
    spy.mockRestore();
  }
});
