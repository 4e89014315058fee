import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { type KubeObject, PODS, type Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { type Change, Informer, type InformerOptions } from "../../src/watch/informer.ts";
import { FakeApiServer, send, sendStatus } from "../kube/api-server.ts";
import { until } from "../kube/until.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
let stop: AbortController;
let runs: Promise<void>[];
let metrics: ReturnType<typeof createMetrics>;

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  // The client's timeouts use the real clock, because its answers come from a real socket.
  client = new KubeClient({ access: server.access });
  stop = new AbortController();
  runs = [];
  metrics = createMetrics();
});

afterEach(async () => {
  stop.abort();
  await Promise.all(runs);
  await client.close();
  await server[Symbol.asyncDispose]();
});

const path = (name: string) => `/api/v1/namespaces/agents/pods/${name}`;
const pod = (name: string, more: Partial<KubeObject["metadata"]> = {}, fields: Record<string, unknown> = {}): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "agents", ...more },
  spec: { containers: [] },
  ...fields,
});

function start(more: Partial<InformerOptions<Pod>> = {}) {
  const informer = new Informer<Pod>({
    client,
    resource: PODS,
    namespace: "agents",
    clock,
    logger: silentLogger,
    metrics,
    random: () => 0.5,
    ...more,
  });
  const changes: string[] = [];
  informer.subscribe(({ type, object }) => changes.push(`${type} ${object.metadata.name}`));
  runs.push(informer.run(stop.signal));
  return { informer, changes };
}

const watches = () => server.requests.filter(({ query }) => query.get("watch") === "true");
const lists = () => server.requests.filter(({ method, query }) => method === "GET" && query.get("watch") === null);
const names = (informer: Informer<Pod>) =>
  informer
    .list()
    .map(({ metadata }) => metadata.name)
    .sort();
const watched = (count = 1) => until(clock, () => server.openWatches === count);

async function restarts(): Promise<Record<string, number>> {
  const { values } = await metrics.reflectorRestarts.get();
  return Object.fromEntries(values.map(({ labels, value }) => [labels.cause, value]));
}

describe("a healthy server", () => {
  test("puts the first list into the cache before `synced`, then applies changes", async () => {
    server.put(path("a"), pod("a"));
    const { informer, changes } = start();
    expect(informer.hasSynced).toBe(false);
    await informer.synced;
    expect([informer.hasSynced, names(informer), changes]).toEqual([true, ["a"], ["added a"]]);
    await watched();
    server.put(path("b"), pod("b"));
    server.put(path("a"), pod("a", { labels: { x: "1" } }));
    server.remove(path("b"));
    await until(clock, () => changes.length === 4);
    expect(changes.slice(1)).toEqual(["added b", "updated a", "deleted b"]);
    expect(informer.get("agents", "a")?.metadata.labels).toEqual({ x: "1" });
    expect(informer.get("agents", "b")).toBeUndefined();
    expect(informer.get("other", "a")).toBeUndefined();
  });

  test("lists in pages and watches from the list's resourceVersion", async () => {
    for (let i = 0; i < 601; i += 1) server.put(path(`p${i}`), pod(`p${i}`));
    const rv = server.resourceVersion;
    const { informer } = start();
    await informer.synced;
    await watched();
    expect(informer.list()).toHaveLength(601);
    expect(lists().map(({ query }) => query.get("limit"))).toEqual(["250", "250", "250"]);
    expect(watches()[0]?.query.get("resourceVersion")).toBe(rv);
  });

  test("does not lose a change between list and watch", async () => {
    server.scripts.push((seen) => {
      if (seen.query.get("watch") === "true" && !server.read(path("late"))) server.put(path("late"), pod("late"));
      return false;
    });
    const { changes } = start();
    await until(clock, () => changes.includes("added late"));
  });

  test("sends the selectors with lists and watches", async () => {
    server.put(path("a"), pod("a", { labels: { app: "x" } }));
    server.put(path("b"), pod("b"));
    const { informer } = start({ labelSelector: "app=x", fieldSelector: "spec.nodeName!=" });
    await watched();
    expect(names(informer)).toEqual(["a"]);
    for (const { query } of server.requests) {
      expect([query.get("labelSelector"), query.get("fieldSelector")]).toEqual(["app=x", "spec.nodeName!="]);
    }
  });

  test("drops managed fields unless a transform keeps them, and keeps unknown fields", async () => {
    server.put(path("a"), pod("a", { managedFields: [{ manager: "x" }] }, { brandNew: { y: 1 } }));
    const { informer } = start();
    const whole = start({ transform: (object) => object });
    await Promise.all([informer.synced, whole.informer.synced]);
    expect(informer.get("agents", "a")?.metadata.managedFields).toBeUndefined();
    expect(informer.get("agents", "a")?.brandNew).toEqual({ y: 1 });
    expect(whole.informer.get("agents", "a")?.metadata.managedFields).toEqual([{ manager: "x" }]);
  });
});

describe("cache", () => {
  test("updates indexes on changes and deletions", async () => {
    const byNode = ({ spec }: Pod) => (spec.nodeName === undefined ? [] : [spec.nodeName]);
    const { informer, changes } = start({ indexes: { node: byNode } });
    await watched();
    const at = (node: string) => informer.byIndex("node", node).map(({ metadata }) => metadata.name);
    server.put(path("a"), { ...pod("a"), spec: { containers: [], nodeName: "n1" } });
    server.put(path("b"), { ...pod("b"), spec: { containers: [], nodeName: "n1" } });
    server.put(path("c"), pod("c"));
    await until(clock, () => changes.length === 3);
    expect([at("n1"), at("n2")]).toEqual([["a", "b"], []]);
    server.put(path("a"), { ...pod("a"), spec: { containers: [], nodeName: "n2" } });
    server.remove(path("b"));
    await until(clock, () => changes.length === 5);
    expect([at("n1"), at("n2")]).toEqual([[], ["a"]]);
    expect(() => informer.byIndex("unknown", "x")).toThrow(/no index/);
  });

  test("calls a handler that threw again, and still calls the other handlers", async () => {
    const { informer, changes } = start();
    const seen: string[] = [];
    informer.subscribe(() => {
      throw new Error("broken handler");
    });
    const unsubscribe = informer.subscribe(({ type }) => seen.push(type));
    await watched();
    server.put(path("a"), pod("a"));
    server.put(path("a"), pod("a", { labels: { x: "2" } }));
    await until(clock, () => changes.length === 2);
    expect(seen).toEqual(["added", "updated"]);
    unsubscribe();
    server.remove(path("a"));
    await until(clock, () => changes.length === 3);
    expect(seen).toEqual(["added", "updated"]);
  });

  test("reports the cached objects to a late subscriber", async () => {
    server.put(path("a"), pod("a"));
    const { informer } = start();
    await informer.synced;
    const seen: Change<Pod>[] = [];
    informer.subscribe((change) => seen.push(change));
    expect(seen.map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual(["added a"]);
  });

  test("reports a replaced object as a deletion and an addition", async () => {
    server.put(path("a"), pod("a", { uid: "one" }));
    const { informer, changes } = start();
    await watched();
    // The watch does not report these; the relist shows only the second object.
    server.remove(path("a"), { hidden: true });
    server.put(path("a"), pod("a", { uid: "two" }), { hidden: true });
    server.sendGone();
    await until(clock, () => changes.length === 3);
    expect(changes).toEqual(["added a", "deleted a", "added a"]);
    expect(informer.get("agents", "a")?.metadata.uid).toBe("two");
  });
});

describe("a faulty server", () => {
  test("continues a cut watch where it ended, without a list", async () => {
    const { changes } = start();
    await watched();
    server.put(path("a"), pod("a"));
    await until(clock, () => changes.length === 1);
    const rv = server.resourceVersion;
    server.cut();
    server.put(path("b"), pod("b"));
    await until(clock, () => changes.length === 2);
    expect(changes).toEqual(["added a", "added b"]);
    expect(lists()).toHaveLength(1);
    expect(watches()[1]?.query.get("resourceVersion")).toBe(rv);
    expect(await restarts()).toEqual({ broken: 1 });
  });

  test("advances its resourceVersion with bookmarks, so that a compaction does no harm", async () => {
    start();
    await watched();
    server.put("/api/v1/namespaces/other/pods/x", pod("x"));
    const rv = server.resourceVersion;
    server.compact();
    server.sendBookmarks();
    // The error that ends the watch follows the bookmark, so the bookmark has been read.
    server.sendError(500, "InternalError");
    await until(clock, () => watches().length === 2);
    expect(watches()[1]?.query.get("resourceVersion")).toBe(rv);
    await watched();
    expect(lists()).toHaveLength(1);
  });

  test("lists again after a 410 and reports what changed meanwhile, including deletions", async () => {
    server.put(path("gone"), pod("gone"));
    server.put(path("kept"), pod("kept"));
    server.put(path("changed"), pod("changed"));
    const { informer, changes } = start();
    await watched();
    changes.length = 0;
    server.remove(path("gone"), { hidden: true });
    server.put(path("changed"), pod("changed", { labels: { x: "1" } }), { hidden: true });
    server.put(path("new"), pod("new"), { hidden: true });
    server.compact();
    server.cut();
    await until(clock, () => changes.length === 3);
    expect(changes.sort()).toEqual(["added new", "deleted gone", "updated changed"]);
    expect(names(informer)).toEqual(["changed", "kept", "new"]);
    expect(lists()).toHaveLength(2);
    expect(await restarts()).toMatchObject({ gone: 1 });
  });

  test("retries an unreachable server with growing pauses, and recovers", async () => {
    const { informer, changes } = start();
    await watched();
    let asked = 0;
    server.scripts.push((_seen, _response, socket) => {
      asked += 1;
      socket.resetAndDestroy();
      return true;
    });
    server.cut();
    const from = clock.monotonic();
    await until(clock, () => asked >= 12, 500);
    // 12 attempts with a doubling backoff from 250 ms (times 0.75 with this random) up to 10 s.
    expect(clock.monotonic() - from).toBeGreaterThan(45_000);
    expect(informer.lastError).toBeDefined();
    server.scripts.length = 0;
    server.put(path("a"), pod("a"));
    await until(clock, () => changes.length === 1);
    expect(informer.lastError).toBeUndefined();
  });

  test("counts how long it may be behind, until a watch is open again", async () => {
    const { informer, changes } = start();
    await watched();
    await clock.advance(60_000);
    expect(informer.behindMs).toBe(0);
    server.scripts.push((seen, response) => {
      if (seen.query.get("watch") !== "true") return false;
      sendStatus(response, 403, "Forbidden", "no permission");
      return true;
    });
    server.cut();
    await until(clock, () => informer.behindMs >= 60_000, 500);
    // A list shows the changes until now, but not the later ones.
    let isListed = false;
    void informer.relist().then(() => {
      isListed = true;
    });
    await until(clock, () => isListed, 500);
    expect(informer.behindMs).toBeGreaterThanOrEqual(60_000);
    server.scripts.length = 0;
    await until(clock, () => server.openWatches === 1, 500);
    server.put(path("a"), pod("a"));
    await until(clock, () => changes.length === 1);
    expect(informer.behindMs).toBe(0);
  });

  test("retries the first list until it succeeds", async () => {
    let left = 5;
    server.scripts.push((_seen, response) => {
      if (left === 0) return false;
      left -= 1;
      sendStatus(response, left % 2 === 0 ? 500 : 403, "InternalError", "not yet");
      return true;
    });
    server.put(path("a"), pod("a"));
    const { informer } = start();
    await until(clock, () => informer.hasSynced);
    expect(names(informer)).toEqual(["a"]);
    expect(lists()).toHaveLength(6);
  });

  test("changes nothing when a list fails halfway", async () => {
    for (let i = 0; i < 600; i += 1) server.put(path(`p${i}`), pod(`p${i}`));
    const { informer } = start();
    await watched();
    let failures = 0;
    server.scripts.push((seen, response) => {
      if (!seen.query.has("continue") || failures > 2) return false;
      failures += 1;
      expect(informer.list()).toHaveLength(600);
      sendStatus(response, 500, "InternalError", "second page fails");
      return true;
    });
    server.sendGone();
    await until(clock, () => lists().length >= 8);
    await watched();
    expect(informer.list()).toHaveLength(600);
  });

  test("does not hot-loop on a server that closes every watch at once", async () => {
    server.scripts.push((seen, response) => {
      if (seen.query.get("watch") !== "true") return false;
      response.writeHead(200).end();
      return true;
    });
    start();
    const from = clock.monotonic();
    await until(clock, () => watches().length >= 10, 500);
    expect(clock.monotonic() - from).toBeGreaterThan(25_000);
  });

  test("reopens a healthy watch at once when the server ends it after its timeout", async () => {
    const { changes } = start();
    await watched();
    for (let i = 0; i < 5; i += 1) {
      server.put(path(`p${i}`), pod(`p${i}`));
      await until(clock, () => changes.length === i + 1);
      await clock.advance(60_000);
      const from = clock.monotonic();
      server.endWatches();
      await until(clock, () => watches().length === i + 2, 1);
      expect(clock.monotonic() - from).toBeLessThan(100);
      await watched();
    }
    expect(lists()).toHaveLength(1);
  });

  test.each([
    ["a torn line", '{"type":"ADDED","obj\n'],
    ["HTML", "<html>\n"],
    ["an unknown event", '{"type":"MOVED","object":{"metadata":{}}}\n'],
  ])("restarts the watch, but not the reflector, after %s in the stream", async (_name, bytes) => {
    const { informer, changes } = start();
    await watched();
    server.writeToWatches(bytes);
    server.put(path("a"), pod("a"));
    await until(clock, () => changes.includes("added a"));
    expect(names(informer)).toEqual(["a"]);
  });

  test("lists again when a change can't be parsed, instead of reading it forever", async () => {
    const { informer } = start();
    await watched();
    const from = server.resourceVersion;
    server.put(path("a"), pod("a"), { hidden: true });
    server.scripts.push((seen, response) => {
      if (seen.query.get("watch") !== "true" || seen.query.get("resourceVersion") !== from) return false;
      response.writeHead(200, { "content-type": "application/json" });
      response.write('{"type":"ADDED","object":\n');
      return true;
    });
    server.cut();
    await until(clock, () => names(informer).length === 1);
    await watched();
    expect(lists()).toHaveLength(2);
    expect(await restarts()).toEqual({ broken: 1, malformed: 1 });
  });

  test("lists again when the server does not know the version yet, as after a restore", async () => {
    const { informer } = start();
    await watched();
    let told = false;
    server.scripts.push((seen, response) => {
      if (told || seen.query.get("watch") !== "true") return false;
      told = true;
      const details = { causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }] };
      sendStatus(response, 504, "Timeout", "Too large resource version: 999, current: 3", { details });
      return true;
    });
    server.put(path("a"), pod("a"), { hidden: true });
    server.cut();
    await until(clock, () => names(informer).length === 1);
    expect(lists()).toHaveLength(2);
  });

  test("waits for the Retry-After", async () => {
    let at: number | undefined;
    server.scripts.push((seen, response) => {
      if (seen.query.get("watch") !== "true" || at !== undefined) return false;
      at = clock.monotonic();
      sendStatus(response, 429, "TooManyRequests", "busy", { headers: { "retry-after": "17" } });
      return true;
    });
    start();
    await watched();
    expect(clock.monotonic() - (at ?? 0)).toBeGreaterThanOrEqual(17_000);
    expect(await restarts()).toEqual({ throttled: 1 });
  });
});

describe("comparing list", () => {
  const misses = async () => (await metrics.reflectorMisses.get()).values[0]?.value ?? 0;

  test("counts and repairs what the watch missed", async () => {
    server.put(path("lost-delete"), pod("lost-delete"));
    server.put(path("lost-update"), pod("lost-update"));
    server.put(path("kept"), pod("kept"));
    const { informer, changes } = start();
    await watched();
    changes.length = 0;
    server.remove(path("lost-delete"), { hidden: true });
    server.put(path("lost-update"), pod("lost-update", { labels: { x: "1" } }), { hidden: true });
    server.put(path("lost-add"), pod("lost-add"), { hidden: true });
    // The watch is alive and passes all of them.
    server.put(path("seen"), pod("seen"));
    await until(clock, () => changes.length === 4, 5_000);
    expect(changes.sort()).toEqual(["added lost-add", "added seen", "deleted lost-delete", "updated lost-update"]);
    expect(names(informer)).toEqual(["kept", "lost-add", "lost-update", "seen"]);
    expect(await misses()).toBe(3);
  });

  // A watch from a version that the server does not have yet stays open and silent (seen on Kubernetes 1.37).
  test("repairs the cache after a restore of etcd, which no watch reports", async () => {
    server.put(path("kept"), pod("kept"));
    const backup = server.resourceVersion;
    const { informer, changes } = start();
    await watched();
    for (const name of ["lost-1", "lost-2", "lost-3"]) server.put(path(name), pod(name));
    await until(clock, () => changes.length === 4, 5_000);
    for (const name of ["lost-1", "lost-2", "lost-3"]) server.remove(path(name), { hidden: true });
    server.rewind(backup);
    server.put(path("new"), pod("new"), { hidden: true });
    await until(clock, () => names(informer).join() === "kept,new", 5_000);
    expect([await misses(), (await restarts()).gone]).toEqual([4, undefined]);
  });

  test("counts no miss in a quiet hour, and restarts nothing", async () => {
    server.put(path("a"), pod("a"));
    start();
    await watched();
    await until(clock, () => lists().length >= 6, 20_000);
    expect([await misses(), watches().length]).toEqual([0, 1]);
  });

  test("waits for a watch that lags behind the list, and counts no miss for what it delivers", async () => {
    const { changes } = start();
    await watched();
    let late: Pod | undefined;
    server.scripts.push((seen) => {
      if (seen.query.get("watch") === null && lists().length === 2 && !late) {
        late = server.put(path("late"), pod("late"), { hidden: true }) as Pod;
      }
      return false;
    });
    await until(clock, () => late !== undefined, 10_000);
    await clock.advance(60_000);
    server.writeToWatches(`${JSON.stringify({ type: "ADDED", object: late })}\n`);
    await until(clock, () => changes.length === 1);
    await clock.advance(120_000);
    expect([await misses(), lists().length]).toEqual([0, 2]);
  });
});

describe("comparing list with concurrent changes", () => {
  const misses = async () => (await metrics.reflectorMisses.get()).values[0]?.value ?? 0;

  test("counts no miss for a change that the watch delivers while the list is in flight", async () => {
    server.put(path("a"), pod("a"));
    server.put(path("b"), pod("b"));
    const { changes } = start();
    await watched();
    const snapshot = {
      resourceVersion: server.resourceVersion,
      items: [server.read(path("a")), server.read(path("b"))],
    };
    let answer: (() => void) | undefined;
    server.scripts.push((seen, response) => {
      if (seen.query.get("watch") === "true" || answer) return false;
      answer = () =>
        send(response, 200, { metadata: { resourceVersion: snapshot.resourceVersion }, items: snapshot.items });
      return true;
    });
    await until(clock, () => answer !== undefined, 10_000);
    server.put(path("a"), pod("a", { labels: { x: "1" } }));
    server.remove(path("b"));
    server.put(path("c"), pod("c"));
    await until(clock, () => changes.length === 5);
    answer?.();
    await until(clock, () => clock.pendingTimers > 0 && lists().length >= 3, 10_000);
    expect([await misses(), watches().length]).toEqual([0, 1]);
  });

  test("drops the comparison after a relist", async () => {
    const { informer } = start();
    await watched();
    let compared = false;
    server.scripts.push((seen) => {
      if (seen.query.get("watch") === "true" || compared) return false;
      compared = true;
      server.put(path("late"), pod("late"), { hidden: true });
      return false;
    });
    await until(clock, () => compared, 10_000);
    server.put(path("x"), pod("x"), { hidden: true });
    server.sendGone();
    await until(clock, () => names(informer).length === 2);
    await clock.advance(150_000);
    expect([await misses(), lists().length]).toEqual([0, 3]);
  });
});

test("ends on an abort during a watch, a list, and a pause", async () => {
  const { informer } = start();
  await watched();
  stop.abort();
  await Promise.all(runs);
  expect(clock.pendingTimers).toBe(0);
  server.scripts.push(() => true);
  stop = new AbortController();
  start();
  await server.until(() => lists().length === 2);
  stop.abort();
  await Promise.all(runs);
  server.scripts.length = 0;
  server.scripts.push((_seen, response) => {
    sendStatus(response, 500, "InternalError", "down");
    return true;
  });
  stop = new AbortController();
  const last = start();
  await until(clock, () => last.informer.lastError !== undefined, 0);
  stop.abort();
  await Promise.all(runs);
  expect([clock.pendingTimers, informer.hasSynced, last.informer.hasSynced]).toEqual([0, true, false]);
});

describe("relist", () => {
  test("shows what no watch has reported", async () => {
    server.put(path("a"), pod("a"));
    const { informer } = start();
    await until(clock, () => informer.hasSynced && server.openWatches === 1);
    server.put(path("late"), pod("late"), { hidden: true });
    const relisted = informer.relist();
    let done = false;
    void relisted.then(() => {
      done = true;
    });
    await until(clock, () => done);
    expect(informer.get("agents", "late")).toBeDefined();
    // It continues to watch from there.
    await until(clock, () => server.openWatches === 1);
    server.put(path("later"), pod("later"));
    await until(clock, () => informer.get("agents", "later") !== undefined);
  });

  test("waits for a list that was sent after the call", async () => {
    let release: (() => void) | undefined;
    let lists = 0;
    server.scripts.push((seen, response) => {
      if (seen.query.get("watch") === "true") return false;
      lists += 1;
      if (lists > 1) return false;
      // The content of this answer was determined before the call.
      release = () => send(response, 200, { kind: "List", metadata: { resourceVersion: "1" }, items: [] });
      return true;
    });
    const { informer } = start();
    await until(clock, () => release !== undefined);
    server.put(path("a"), pod("a"), { hidden: true });
    let done = false;
    void informer.relist().then(() => {
      done = true;
    });
    release?.();
    await until(clock, () => done);
    expect([lists, informer.get("agents", "a") !== undefined]).toEqual([2, true]);
  });

  test("resolves with the first list if called before `run`", async () => {
    server.put(path("a"), pod("a"));
    let done = false;
    const informer = new Informer<Pod>({ client, resource: PODS, namespace: "agents", clock, logger: silentLogger });
    void informer.relist().then(() => {
      done = true;
    });
    runs.push(informer.run(stop.signal));
    await until(clock, () => done);
    expect(server.requests.filter(({ query }) => query.get("watch") !== "true")).toHaveLength(1);
  });
});
