import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import {
  hasStatus,
  isAlreadyExists,
  isBadRequest,
  isConflict,
  isNotFound,
  KubeApiError,
  LeadershipLostError,
} from "../../src/kube/errors.ts";
import { type KubeObject, LEASES, NODES, PODS, type Pod } from "../../src/kube/resource.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeApiServer, type Script, type SeenRequest, send, sendStatus } from "./api-server.ts";
import { settled } from "./until.ts";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
const metrics = createMetrics();

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access, clock, metrics, random: () => 0 });
});

afterEach(async () => {
  await client.close();
  await server[Symbol.asyncDispose]();
});

const POD_PATH = "/api/v1/namespaces/agents/pods/a";
const pod = (name = "a", more: Record<string, unknown> = {}): Pod => ({
  metadata: { name, namespace: "agents" },
  spec: { containers: [{ name: "main", image: "i" }] },
  ...more,
});

async function caught(work: Promise<unknown>): Promise<KubeApiError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof KubeApiError) return error;
  throw new Error(`expected a KubeApiError, got ${String(error)}`);
}

/** Answers the first `times` requests with `answer`. */
function script(times: number, answer: (...seen: Parameters<Script>) => unknown) {
  let left = times;
  server.scripts.push((...seen) => {
    if (left <= 0) return false;
    left -= 1;
    answer(...seen);
    return true;
  });
}

describe("objects", () => {
  test("undeclared fields survive create, get, replace and patch", async () => {
    const created = await client.create(PODS, { ...pod(), brandNew: { deep: [1, { x: null }] } });
    expect(created.kind).toBe("Pod");
    expect(created.apiVersion).toBe("v1");
    const read = await client.get(PODS, { namespace: "agents", name: "a" });
    expect(read.brandNew).toEqual({ deep: [1, { x: null }] });
    await client.replace(PODS, { ...read, other: "é" });
    await client.patch(PODS, { namespace: "agents", name: "a" }, { spec: { nodeName: "n" } }, { type: "merge" });
    const last = server.read(POD_PATH);
    expect(last).toMatchObject({ brandNew: { deep: [1, { x: null }] }, other: "é", spec: { nodeName: "n" } });
    expect(server.requests.map(({ method }) => method)).toEqual(["POST", "GET", "PUT", "PATCH"]);
  });

  test("list adds the apiVersion and kind that the server leaves out of items", async () => {
    server.put(POD_PATH, pod());
    const list = await client.list(PODS, { namespace: "agents" });
    expect(list.items.map(({ apiVersion, kind }) => `${apiVersion} ${kind}`)).toEqual(["v1 Pod"]);
  });

  test("listAll reads all pages of one snapshot", async () => {
    for (let i = 0; i < 7; i += 1) server.put(`/api/v1/namespaces/agents/pods/p${i}`, pod(`p${i}`));
    const rv = server.resourceVersion;
    const list = await client.listAll(PODS, { namespace: "agents" }, {}, 3);
    expect(list.items.map((item) => item.metadata.name)).toEqual(["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    expect(list.metadata).toEqual({ resourceVersion: rv });
    expect(server.requests).toHaveLength(3);
  });

  test("listAll reduces each page before it requests the next", async () => {
    for (let i = 0; i < 4; i += 1) server.put(`/api/v1/namespaces/agents/pods/p${i}`, pod(`p${i}`));
    const asked: number[] = [];
    const keep = ({ metadata: { name = "" } }: Pod): Pod => {
      asked.push(server.requests.length);
      return { metadata: { name }, spec: { containers: [] } };
    };
    const list = await client.listAll(PODS, { namespace: "agents" }, { keep }, 2);
    expect(list.items).toEqual(
      ["p0", "p1", "p2", "p3"].map((name) => ({ metadata: { name }, spec: { containers: [] } })),
    );
    expect(asked).toEqual([1, 1, 2, 2]);
  });

  test("listAll fails when one of its pages fails", async () => {
    for (const name of ["a", "b", "c"]) await client.create(PODS, pod(name));
    server.scripts.push((seen, reply) => {
      if (!seen.query.has("continue")) return false;
      sendStatus(reply, 500, "InternalError", "failed");
      return true;
    });
    expect((await caught(client.listAll(PODS, { namespace: "agents" }, {}, 2))).status).toBe(500);
  });

  test("a delete has the uid and the resourceVersion as preconditions", async () => {
    await client.create(PODS, pod());
    await client.delete(PODS, { namespace: "agents", name: "a" }, { resourceVersion: "1" }).catch(() => {});
    const asked = server.requests.at(-1)?.body as { preconditions?: unknown };
    expect(asked.preconditions).toEqual({ resourceVersion: "1" });
  });

  test("listAll starts again without pages when the snapshot expires between pages", async () => {
    for (let i = 0; i < 5; i += 1) server.put(`/api/v1/namespaces/agents/pods/p${i}`, pod(`p${i}`));
    server.scripts.push((seen) => {
      if (seen.query.has("continue")) server.compact();
      return false;
    });
    const list = await client.listAll(PODS, { namespace: "agents" }, {}, 2);
    expect(list.items).toHaveLength(5);
    expect(server.requests.map(({ query }) => query.get("limit"))).toEqual(["2", "2", null]);
  });

  test("cluster-scoped objects have no namespace in their path, whatever the reference contains", async () => {
    server.put("/api/v1/nodes/n", { metadata: { name: "n" } });
    await client.get(NODES, { namespace: "ignored", name: "n" });
    expect(server.requests[0]?.path).toBe("/api/v1/nodes/n");
  });

  test("a delete carries its preconditions and grace, and a wrong UID is a conflict", async () => {
    const { metadata } = server.put(POD_PATH, pod());
    const ref = { namespace: "agents", name: "a" };
    expect(isConflict(await caught(client.delete(PODS, ref, { uid: "other" })))).toBe(true);
    await client.delete(PODS, ref, { uid: metadata.uid ?? "", gracePeriodSeconds: 0, propagationPolicy: "Background" });
    expect(server.requests[1]?.body).toEqual({
      apiVersion: "v1",
      kind: "DeleteOptions",
      gracePeriodSeconds: 0,
      propagationPolicy: "Background",
      preconditions: { uid: metadata.uid },
    });
    expect(server.read(POD_PATH)).toBeUndefined();
  });

  test("a create sends dry run and strict validation, a patch its type", async () => {
    await client.create(PODS, pod(), { dryRun: true, fieldValidation: "Strict" });
    expect(Object.fromEntries(server.requests[0]?.query ?? [])).toEqual({ dryRun: "All", fieldValidation: "Strict" });
    script(1, (_seen, response) => send(response, 200, pod()));
    await client.patch(
      PODS,
      { namespace: "agents", name: "a" },
      {},
      {
        type: "apply",
        fieldManager: "berth",
        force: true,
        subresource: "status",
      },
    );
    const applied = server.requests[1];
    expect(applied?.headers["content-type"]).toBe("application/apply-patch+yaml");
    expect(applied?.path).toBe(`${POD_PATH}/status`);
    expect(Object.fromEntries(applied?.query ?? [])).toEqual({ fieldManager: "berth", force: "true" });
  });

  test("raw reads JSON and plain text", async () => {
    script(1, (_seen, response) => send(response, 200, { gitVersion: "v1" }));
    expect(await client.raw("GET", "/version")).toEqual({ gitVersion: "v1" });
    script(1, (_seen, response) => response.writeHead(200, { "content-type": "text/plain" }).end("ok"));
    expect(await client.raw("GET", "/readyz")).toBe("ok");
  });
});

describe("errors", () => {
  test("a Status becomes reason, details and a message that names the request", async () => {
    const error = await caught(client.get(PODS, { namespace: "agents", name: "a" }));
    expect(isNotFound(error)).toBe(true);
    expect(error.message).toBe('get pods agents/a: "a" not found');
    expect(error.maybeApplied).toBe(false);
    server.put(POD_PATH, pod());
    expect(isAlreadyExists(await caught(client.create(PODS, pod())))).toBe(true);
  });

  test("a 404 that is not from the API server does not count as absence", async () => {
    script(1, (_seen, response) => response.writeHead(404, { "content-type": "text/html" }).end("<h1>no</h1>"));
    const page = await caught(client.get(PODS, { namespace: "agents", name: "a" }));
    expect([page.status, isNotFound(page)]).toEqual([404, false]);
    script(1, (_seen, response) =>
      sendStatus(response, 404, "NotFound", "the server could not find the requested resource", { details: {} }),
    );
    expect(isNotFound(await caught(client.get(PODS, { namespace: "agents", name: "a" })))).toBe(false);
  });

  test("a proxy's page with status 200 is no success, and a write may have been applied", async () => {
    const page = "<html>please log in</html>";
    script(3, (_seen, response) => response.writeHead(200, { "content-type": "text/html" }).end(page));
    expect((await caught(client.get(PODS, { namespace: "agents", name: "a" }))).maybeApplied).toBe(false);
    expect((await caught(client.list(PODS))).message).toContain("not the API server's");
    expect((await caught(client.delete(PODS, { namespace: "agents", name: "a" }))).maybeApplied).toBe(true);
  });

  test("an answer that is no list is an error, not an empty list", async () => {
    script(1, (_seen, response) => send(response, 200, { kind: "PodList", metadata: {} }));
    expect((await caught(client.list(PODS))).message).toContain("it is not a list");
  });

  test("a long error page is read up to a bound and not quoted", async () => {
    script(1, (_seen, response) => {
      response.writeHead(400, { "content-type": "text/html" });
      response.write("x".repeat(1024 * 1024));
    });
    const error = await caught(client.create(PODS, pod()));
    expect(isBadRequest(error)).toBe(true);
    expect(error.message).toBe("create pods agents/a: HTTP 400, not an answer of the API server");
  });

  test("credentials in a server's message are redacted", async () => {
    script(1, (_seen, response) => sendStatus(response, 400, "BadRequest", "bad value sk-ant-abcdefgh in field"));
    expect((await caught(client.create(PODS, pod()))).message).not.toContain("abcdefgh");
  });

  test("a 5xx answer to a write leaves the outcome open, a 4xx does not", async () => {
    script(1, (_seen, response) => sendStatus(response, 504, "Timeout", "request did not complete"));
    expect((await caught(client.create(PODS, pod()))).maybeApplied).toBe(true);
    script(1, (_seen, response) => sendStatus(response, 403, "Forbidden", "no"));
    expect((await caught(client.create(PODS, pod()))).maybeApplied).toBe(false);
  });
});

describe("retries", () => {
  const busy = (_seen: SeenRequest, response: Parameters<typeof sendStatus>[0]) =>
    sendStatus(response, 429, "TooManyRequests", "slow down", { headers: { "retry-after": "2" } });

  test("a read and an idempotent write are repeated after Retry-After", async () => {
    server.put(POD_PATH, pod());
    script(1, busy);
    const start = clock.monotonic();
    await settled(clock, client.get(PODS, { namespace: "agents", name: "a" }));
    expect(clock.monotonic() - start).toBeGreaterThanOrEqual(2_000);
    script(1, busy);
    await settled(clock, client.delete(PODS, { namespace: "agents", name: "a" }));
    expect(server.requests.map(({ method }) => method)).toEqual(["GET", "GET", "DELETE", "DELETE"]);
  });

  test("a create and a patch are not repeated: the error contains the delay", async () => {
    script(2, busy);
    expect((await caught(client.create(PODS, pod()))).retryAfterMs).toBe(2_000);
    const ref = { namespace: "agents", name: "a" };
    expect((await caught(client.patch(PODS, ref, {}, { type: "merge" }))).retryAfterMs).toBe(2_000);
    expect(server.requests).toHaveLength(2);
  });

  test("a read ends after four attempts, and at once when the delay exceeds its time", async () => {
    script(20, busy);
    const ref = { namespace: "agents", name: "a" };
    expect((await caught(settled(clock, client.get(PODS, ref)))).status).toBe(429);
    expect(server.requests).toHaveLength(4);
    expect((await caught(client.get(PODS, ref, { timeoutMs: 1_500 }))).status).toBe(429);
    expect(server.requests).toHaveLength(5);
  });

  test("a read is repeated after its connection breaks, a write is not", async () => {
    server.put(POD_PATH, pod());
    script(1, (_seen, _response, socket) => socket.resetAndDestroy());
    await settled(clock, client.get(PODS, { namespace: "agents", name: "a" }));
    script(1, (_seen, _response, socket) => socket.resetAndDestroy());
    const error = await caught(client.create(PODS, pod("b")));
    expect([hasStatus(error, 0), error.maybeApplied]).toEqual([true, true]);
    expect(server.requests.map(({ method }) => method)).toEqual(["GET", "GET", "POST"]);
  });

  test("an incomplete answer counts as no answer", async () => {
    script(4, (_seen, response, socket) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": "1000" });
      response.write('{"kind":"Pod","metadata":', () => socket.destroy());
    });
    const error = await caught(settled(clock, client.get(PODS, { namespace: "agents", name: "a" })));
    expect(hasStatus(error, 0)).toBe(true);
    expect(server.requests).toHaveLength(4);
  });

  test("a write without a server was certainly not applied", async () => {
    await server[Symbol.asyncDispose]();
    const error = await caught(client.create(PODS, pod()));
    expect([hasStatus(error, 0), error.maybeApplied]).toEqual([true, false]);
    server = await FakeApiServer.start();
  });
});

describe("bounds", () => {
  test("a call without an answer ends at its timeout, and its write may have been applied", async () => {
    script(1, () => {});
    const work = caught(client.create(PODS, pod(), {}, { timeoutMs: 1_500 }));
    await server.until(() => server.requests.length === 1);
    await clock.advance(1_500);
    const error = await work;
    expect([error.status, error.maybeApplied]).toEqual([0, true]);
    expect(error.message).toContain("timed out after 1500 ms");
  });

  test("the same timeout bounds a body that arrives slowly", async () => {
    script(1, (_seen, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.write("{");
    });
    const work = caught(client.get(PODS, { namespace: "agents", name: "a" }, { timeoutMs: 1_500 }));
    await server.until(() => server.requests.length === 1);
    await clock.advance(1_500);
    expect(hasStatus(await work, 0)).toBe(true);
  });

  test("the caller's signal ends a call at once", async () => {
    script(1, () => {});
    const controller = new AbortController();
    const work = caught(client.get(PODS, { namespace: "agents", name: "a" }, { signal: controller.signal }));
    await server.until(() => server.requests.length === 1);
    controller.abort();
    expect(hasStatus(await work, 0)).toBe(true);
    const again = caught(client.get(PODS, { namespace: "agents", name: "a" }, { signal: controller.signal }));
    expect(hasStatus(await again, 0)).toBe(true);
    expect(server.requests).toHaveLength(1);
  });

  test("connections are reused: 200 calls, 20 at a time, do not open 200", async () => {
    server.put(POD_PATH, pod());
    const one = async () => {
      for (let i = 0; i < 10; i += 1) await client.get(PODS, { namespace: "agents", name: "a" });
    };
    await Promise.all(Array.from({ length: 20 }, one));
    expect(server.requests).toHaveLength(200);
    // More than 20: a connection counts as busy until the turn of the event loop after its answer.
    expect(server.connections).toBeLessThanOrEqual(40);
  });

  test("deletes with preconditions leave their connections open for later calls", async () => {
    for (let times = 0; times < 10; times += 1) {
      server.put(POD_PATH, pod());
      const { metadata } = await client.get(PODS, { namespace: "agents", name: "a" });
      await client.delete(PODS, { namespace: "agents", name: "a" }, { uid: metadata.uid ?? "", gracePeriodSeconds: 0 });
    }
    // Two: a connection counts as busy until the turn of the event loop after its answer.
    expect(server.connections).toBeLessThanOrEqual(2);
  });

  test("a burst opens at most 64 connections", async () => {
    server.put(POD_PATH, pod());
    await Promise.all(Array.from({ length: 300 }, () => client.get(PODS, { namespace: "agents", name: "a" })));
    expect(server.connections).toBeLessThanOrEqual(64);
  });
});

test("a Lease does not wait behind a burst of other calls", async () => {
  const open: (() => void)[] = [];
  server.scripts.push((seen, response) => {
    if (seen.path.includes("leases")) return false;
    open.push(() => send(response, 201, pod()));
    return true;
  });
  const burst = Array.from({ length: 100 }, (_, i) => client.create(PODS, pod(`p${i}`)));
  await server.until(() => open.length === 64);
  await client.create(LEASES, { metadata: { name: "operator", namespace: "berth" } });
  server.scripts.length = 0;
  for (const answer of open) answer();
  await Promise.all(burst);
});

describe("fence", () => {
  test("a fence that throws blocks writes but not reads", async () => {
    const lost = new LeadershipLostError("lost");
    const fenced = client.fenced(() => {
      throw lost;
    });
    server.put(POD_PATH, pod());
    const ref = { namespace: "agents", name: "a" };
    await fenced.get(PODS, ref);
    for (const write of [
      () => fenced.create(PODS, pod("b")),
      () => fenced.replace(PODS, pod()),
      () => fenced.patch(PODS, ref, {}, { type: "merge" }),
      () => fenced.delete(PODS, ref),
      () => fenced.raw("POST", `${POD_PATH}/eviction`, {}),
    ]) {
      await expect(write()).rejects.toBe(lost);
    }
    expect(server.requests.map(({ method }) => method)).toEqual(["GET"]);
  });

  test("a write that waited for a connection is fenced when it gets one", async () => {
    let held = true;
    const fenced = client.fenced(() => {
      if (!held) throw new LeadershipLostError("lost while it waited");
    });
    const open: (() => void)[] = [];
    server.scripts.push((_seen, response) => {
      open.push(() => send(response, 201, pod()));
      return true;
    });
    const first = Array.from({ length: 64 }, (_, i) => fenced.create(PODS, pod(`p${i}`)));
    await server.until(() => open.length === 64);
    const late = fenced.create(PODS, pod("late"));
    await clock.settle();
    held = false;
    for (const answer of open) answer();
    await Promise.all(first);
    await expect(late).rejects.toBeInstanceOf(LeadershipLostError);
    expect(server.requests).toHaveLength(64);
  });

  test("a retry is fenced again, and a doubly fenced client calls both fences", async () => {
    let calls = 0;
    const outer = client.fenced(() => {
      calls += 1;
    });
    const inner = outer.fenced(() => {
      if (calls > 2) throw new LeadershipLostError("lost");
    });
    server.put(POD_PATH, pod());
    script(1, (_seen, response) =>
      sendStatus(response, 503, "ServiceUnavailable", "starting", { headers: { "retry-after": "1" } }),
    );
    const work = settled(clock, inner.delete(PODS, { namespace: "agents", name: "a" }));
    await expect(work).rejects.toBeInstanceOf(LeadershipLostError);
    expect(server.requests).toHaveLength(1);
  });
});

describe("credentials", () => {
  test("requests carry the token and the user agent", async () => {
    server.put(POD_PATH, pod());
    await client.get(PODS, { namespace: "agents", name: "a" });
    expect(server.requests[0]?.headers).toMatchObject({ authorization: "Bearer test-token", "user-agent": "berth" });
  });

  test("a 401 makes a plug-in return fresh credentials, once", async () => {
    const asked: boolean[] = [];
    const plugin = async (fresh: boolean) => {
      asked.push(fresh);
      return { authorization: fresh ? "Bearer new" : "Bearer old" };
    };
    const refreshing = new KubeClient({ access: { ...server.access, auth: { plugin } }, clock });
    server.scripts.push((seen, response) => {
      if (seen.headers.authorization === "Bearer new") return false;
      sendStatus(response, 401, "Unauthorized", "Unauthorized");
      return true;
    });
    await refreshing.create(PODS, pod());
    expect(asked).toEqual([false, true]);
    server.scripts.length = 0;
    script(10, (_seen, response) => sendStatus(response, 401, "Unauthorized", "Unauthorized"));
    expect((await caught(refreshing.get(PODS, { namespace: "agents", name: "a" }))).status).toBe(401);
    expect(server.requests).toHaveLength(4);
    await refreshing.close();
  });

  test("each impersonated group is a separate header", async () => {
    const impersonate = { user: "zoë", groups: ["dev", "ops, all"], extra: { "example.com/team": ["a", "b"] } };
    const sent: NodeJS.Dict<string[]>[] = [];
    server.scripts.push((_, { req }) => {
      sent.push(req.headersDistinct);
      return false;
    });
    const other = new KubeClient({ access: { ...server.access, auth: { impersonate } }, clock });
    await other.list(PODS, { namespace: "agents" });
    await other.close();
    expect(sent).toEqual([
      expect.objectContaining({
        "impersonate-user": [Buffer.from("zoë").toString("latin1")],
        "impersonate-group": ["dev", "ops, all"],
        "impersonate-extra-example.com%2fteam": ["a", "b"],
      }),
    ]);
  });

  test("a failed plug-in is named as the cause, and the write was certainly not applied", async () => {
    const plugin = () => Promise.reject(new Error("cloud-auth: log in first"));
    const locked = new KubeClient({ access: { ...server.access, auth: { plugin } }, clock });
    const error = await caught(locked.create(PODS, pod()));
    expect(error.message).toBe("create pods agents/a: no credentials for the API server: cloud-auth: log in first");
    expect(error.maybeApplied).toBe(false);
    await locked.close();
  });

  test("an unreadable new client certificate is not replaced by the previous one", async () => {
    let credentials = {};
    const renewed = new KubeClient({ access: { ...server.access, auth: { plugin: async () => credentials } }, clock });
    await renewed.create(PODS, pod("a"));
    credentials = { cert: "half of a file", key: "half of a file" };
    for (const name of ["b", "c"]) {
      const error = await caught(renewed.create(PODS, pod(name)));
      expect(error.message).toContain("no answer from the API server: ");
      expect(error.maybeApplied).toBe(false);
    }
    credentials = {};
    await renewed.create(PODS, pod("d"));
    expect(server.requests.map(({ body }) => (body as Pod).metadata.name)).toEqual(["a", "d"]);
    await renewed.close();
  });
});

test("requests are counted by verb, resource and code", async () => {
  metrics.kubeRequests.reset();
  await caught(client.get(PODS, { namespace: "agents", name: "a" }));
  await client.create(PODS, pod());
  script(1, (_seen, response) => send(response, 200, pod()));
  await client.patch(PODS, { namespace: "agents", name: "a" }, {}, { type: "merge", subresource: "status" });
  const { values } = await metrics.kubeRequests.get();
  const lines = values.map(({ labels, value }) => `${labels.verb} ${labels.resource} ${labels.code} ${value}`);
  expect(lines).toEqual(["get pods 404 1", "create pods 201 1", "patch pods/status 200 1"]);
});

test("a closed client throws and opens no connection again", async () => {
  await client.close();
  const error = await caught(client.create(PODS, { metadata: { name: "x", namespace: "y" } } as KubeObject as Pod));
  expect(error.maybeApplied).toBe(false);
  expect(server.connections).toBe(0);
});
