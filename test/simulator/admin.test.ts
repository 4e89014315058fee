import { connect } from "node:net";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { startSimulator } from "../../simulator/simulator.ts";
import { workerOf } from "./client.ts";
import { type Rig, startRig } from "./rig.ts";

async function admin(url: string, method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(`${url}/admin/${path}`, {
    method,
    headers: { "content-type": "application/json", ...headers },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : (JSON.parse(text) as unknown) };
}

const idSchema = z.looseObject({ id: z.string() });

const call = (rig: Rig, method: string, path: string, body?: unknown) => admin(rig.simulator.url, method, path, body);

describe("the admin API", () => {
  test("creates environments, queues items, and shows their state without credentials", async () => {
    await using rig = await startRig();
    const made = await call(rig, "POST", "environments", { id: "env_mine", key: "sk-ant-oat01-mine" });
    expect(made).toEqual({ status: 201, body: { id: "env_mine", key: "sk-ant-oat01-mine" } });
    expect((await call(rig, "POST", "environments", { id: "env_mine" })).status).toBe(400);
    const client = rig.client.with({ environmentId: "env_mine", bearer: "sk-ant-oat01-mine" });
    const item = { type: "session", metadata: { a: "b" } };
    const queued = await call(rig, "POST", "environments/env_mine/items", item);
    expect(queued).toMatchObject({ status: 201, body: { state: "queued", environmentId: "env_mine" } });
    const work = await client.take();
    await client.ack(work.id);
    const shown = await call(rig, "GET", `items/${work.id}`);
    expect(shown.body).toMatchObject({ id: work.id, state: "starting", acks: [{ workerId: "poller-1" }] });
    const state = await call(rig, "GET", "state");
    expect(state.body).toMatchObject({ items: [{ id: work.id }], environments: [{}, { id: "env_mine" }] });
    expect(JSON.stringify(state.body)).not.toContain("sk-ant-");
  });

  test("rotates keys, stops items, and revokes tokens", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    const rotated = await call(rig, "POST", `environments/${rig.environmentId}/key`, {});
    expect(rotated).toMatchObject({ status: 200, body: { key: rig.simulator.environmentKey(rig.environmentId) } });
    expect((await rig.client.stats()).status).toBe(401);
    expect((await call(rig, "POST", `items/${work.id}/revoke-tokens`)).status).toBe(204);
    expect((await workerOf(rig.client, work).beat(work.id, "NO_HEARTBEAT")).status).toBe(401);
    expect((await call(rig, "POST", `items/${work.id}/stop`, { force: true })).status).toBe(204);
    expect(rig.simulator.item(work.id)).toMatchObject({ state: "stopped", stoppedBy: { as: "admin" } });
  });

  test("claims an item so that you can try a worker by hand", async () => {
    await using rig = await startRig();
    expect((await call(rig, "POST", `environments/${rig.environmentId}/claim`)).status).toBe(204);
    const [first, second] = [0, 1].map(() => rig.simulator.enqueue(rig.environmentId));
    const claimed = await call(rig, "POST", `environments/${rig.environmentId}/claim`);
    expect(claimed.body).toEqual({
      ANTHROPIC_BASE_URL: rig.simulator.url,
      ANTHROPIC_ENVIRONMENT_ID: rig.environmentId,
      ANTHROPIC_WORK_ID: first?.id,
      ANTHROPIC_SESSION_ID: first?.sessionId,
      ANTHROPIC_WORK_SECRET: expect.any(String),
    });
    expect(rig.simulator.item(first?.id ?? "").state).toBe("starting");
    const url = `${rig.simulator.url}/admin/environments/${rig.environmentId}/claim`;
    const text = await (await fetch(url, { method: "POST", headers: { accept: "text/plain" } })).text();
    expect(text).toMatch(/^(ANTHROPIC_[A-Z_]+=\S+\n){5}$/);
    expect(text).toContain(`ANTHROPIC_WORK_ID=${second?.id}\n`);
    rig.simulator.assertNoViolations();
  });

  test("starts and stops arrivals", async () => {
    await using rig = await startRig();
    const plan = { kind: "poisson", ratePerSecond: 1, item: { type: "healthcheck" } };
    const started = await call(rig, "POST", `environments/${rig.environmentId}/arrivals`, plan);
    expect(started).toMatchObject({ status: 201, body: { id: expect.stringMatching(/^arr_/) } });
    await rig.clock.advance(10_000);
    expect(rig.simulator.items().every((item) => item.type === "healthcheck")).toBe(true);
    const { id } = idSchema.parse(started.body);
    expect((await call(rig, "DELETE", `arrivals/${id}`)).status).toBe(204);
    expect((await call(rig, "DELETE", `arrivals/${id}`)).status).toBe(404);
  });

  test("acts as the user of a session", async () => {
    await using rig = await startRig();
    const turns = [{ tools: [{ ask: true }] }];
    const { sessionId = "" } = rig.simulator.enqueue(rig.environmentId, { script: { turns } });
    const [tool] = rig.simulator.session(sessionId).toolCalls;
    const verdict = { toolUseId: tool?.id, allow: false };
    expect((await call(rig, "POST", `sessions/${sessionId}/confirm`, verdict)).status).toBe(204);
    expect((await call(rig, "POST", `sessions/${sessionId}/confirm`, verdict)).status).toBe(404);
    expect((await call(rig, "POST", `sessions/${sessionId}/messages`, { turns })).status).toBe(204);
    expect((await call(rig, "POST", `sessions/${sessionId}/interrupt`)).status).toBe(204);
    expect((await call(rig, "GET", `sessions/${sessionId}`)).body).toMatchObject({ status: "idle" });
    expect((await call(rig, "POST", `sessions/${sessionId}/terminate`)).status).toBe(204);
    expect((await call(rig, "DELETE", `sessions/${sessionId}`)).status).toBe(204);
    expect((await call(rig, "GET", "sessions")).body).toMatchObject([{ status: "terminated", deleted: true }]);
  });

  test("injects and removes faults", async () => {
    await using rig = await startRig();
    const put = await call(rig, "POST", "faults", { kind: "status", status: 500, call: "stats" });
    expect(put.status).toBe(201);
    expect((await rig.client.stats()).status).toBe(500);
    expect((await call(rig, "GET", "faults")).body).toMatchObject([{ struck: 1 }]);
    const { id } = idSchema.parse(put.body);
    expect((await call(rig, "DELETE", `faults/${id}`)).status).toBe(204);
    expect((await rig.client.stats()).status).toBe(200);
    expect((await call(rig, "POST", "faults", { kind: "novelty" })).status).toBe(400);
  });

  test("changes switches and the clock", async () => {
    await using rig = await startRig();
    expect((await call(rig, "PATCH", "switches", { lapse: "stop" })).body).toMatchObject({ lapse: "stop" });
    expect((await call(rig, "GET", "switches")).body).toEqual(rig.simulator.switches);
    expect((await call(rig, "PATCH", "switches", { lapse: "novelty" })).status).toBe(400);
    expect((await call(rig, "PATCH", "switches", { novelty: 1 })).status).toBe(400);
    expect((await call(rig, "PATCH", "clock", { scale: 60 })).body).toMatchObject({ scale: 60 });
    expect((await call(rig, "PATCH", "clock", { scale: 0 })).status).toBe(400);
    const before = rig.simulator.clock.now();
    await rig.clock.advance(1000);
    expect(rig.simulator.clock.now() - before).toBeCloseTo(60_000, 0);
  });

  test("lists and clears violations", async () => {
    await using rig = await startRig();
    await rig.client.pollRaw({ block_ms: 0 });
    expect((await call(rig, "GET", "violations")).body).toMatchObject({ violations: [{ kind: "invalid-poll" }] });
    expect((await call(rig, "GET", "report")).body).toMatchObject({ violations: 1 });
    expect((await call(rig, "DELETE", "violations")).status).toBe(204);
    expect((await call(rig, "GET", "violations")).body).toEqual({ violations: [], excused: [] });
  });

  test("answers 404 for unknown paths and ids, and 400 for invalid input", async () => {
    await using rig = await startRig();
    expect((await call(rig, "GET", "novelty")).status).toBe(404);
    expect((await call(rig, "GET", "items/work_none")).status).toBe(404);
    expect((await call(rig, "POST", "environments/env_none/items")).status).toBe(404);
    expect((await call(rig, "POST", `environments/${rig.environmentId}/items`, { novelty: 1 })).status).toBe(400);
    expect((await call(rig, "GET", "items/%zz")).status).toBe(404);
    const broken = await fetch(`${rig.simulator.url}/admin/faults`, { method: "POST", body: "{" });
    expect(broken.status).toBe(400);
  });

  test("rejects requests from web pages, and requests without the token if one is set", async () => {
    await using rig = await startRig();
    const origin = { origin: "https://example.org" };
    expect((await admin(rig.simulator.url, "GET", "state", undefined, origin)).status).toBe(403);
    await using guarded = await startSimulator({ adminToken: "secret" });
    expect((await admin(guarded.url, "GET", "state")).status).toBe(401);
    expect((await admin(guarded.url, "GET", "state", undefined, { authorization: "Bearer wrong" })).status).toBe(401);
    expect((await admin(guarded.url, "GET", "state", undefined, { authorization: "Bearer secret" })).status).toBe(200);
  });

  test("accepts the token in its own header, for proxies that strip Authorization", async () => {
    await using guarded = await startSimulator({ adminToken: "secret" });
    const get = (token: string) => admin(guarded.url, "GET", "state", undefined, { "x-simulator-token": token });
    expect((await get("wrong")).status).toBe(401);
    expect((await get("secret")).status).toBe(200);
  });

  test("filters items, sessions, and violations by environment", async () => {
    await using rig = await startRig();
    const other = rig.simulator.createEnvironment();
    const [mine, theirs] = [rig.environmentId, other.id].map((id) => rig.simulator.enqueue(id));
    await rig.client.pollRaw({ block_ms: 0 });
    const get = async (what: string, id: string) => (await call(rig, "GET", `${what}?environmentId=${id}`)).body;
    expect(await get("items", rig.environmentId)).toMatchObject([{ id: mine?.id }]);
    expect(await get("items", other.id)).toMatchObject([{ id: theirs?.id }]);
    expect(await get("sessions", other.id)).toMatchObject([{ id: theirs?.sessionId }]);
    expect(await get("violations", rig.environmentId)).toMatchObject({ violations: [{ kind: "invalid-poll" }] });
    expect(await get("violations", other.id)).toEqual({ violations: [], excused: [] });
  });

  test("lists who sent which request", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    await rig.client.ack(work.id);
    const { body } = await call(rig, "GET", `requests?environmentId=${rig.environmentId}`);
    expect(body).toMatchObject([
      { call: "poll", status: 200, environmentId: rig.environmentId, workerId: "poller-1" },
      { call: "ack", status: 200, environmentId: rig.environmentId, workId: work.id },
    ]);
    expect((await call(rig, "GET", "requests?environmentId=env_none")).body).toEqual([]);
  });

  test("shows an environment's queue, polls, and key", async () => {
    await using rig = await startRig();
    rig.simulator.enqueue(rig.environmentId);
    const shown = await call(rig, "GET", `environments/${rig.environmentId}`);
    expect(shown.body).toMatchObject({ id: rig.environmentId, stats: { depth: 1 }, pollsWaiting: 0 });
    expect(JSON.stringify(shown.body)).not.toContain("sk-ant-");
    const key = rig.simulator.environmentKey(rig.environmentId);
    expect((await call(rig, "GET", `environments/${rig.environmentId}/key`)).body).toEqual({ key });
    expect((await call(rig, "GET", "environments/env_none/key")).status).toBe(404);
    expect((await call(rig, "GET", "environments/env_none")).status).toBe(404);
  });

  test("sets the TTL of an environment's leases", async () => {
    await using rig = await startRig();
    const made = await call(rig, "POST", "environments", { ttlSeconds: 12 });
    const { id, key } = z.looseObject({ id: z.string(), key: z.string() }).parse(made.body);
    const client = rig.client.with({ environmentId: id, bearer: key });
    rig.simulator.enqueue(id);
    const work = await client.take();
    await client.ack(work.id);
    const beat = await client.beat(work.id, "NO_HEARTBEAT", 180);
    expect(beat.json()).toMatchObject({ ttl_seconds: 12 });
  });

  test("lists every credential that was issued, but only to clients with the token", async () => {
    await using guarded = await startSimulator({ adminToken: "secret" });
    const { id, key } = guarded.createEnvironment();
    guarded.enqueue(id);
    const variables = await guarded.claim(id);
    const second = guarded.rotateKey(id);
    const headers = { "x-simulator-token": "secret" };
    const { body } = await admin(guarded.url, "GET", "credentials", undefined, headers);
    expect(body).toEqual(expect.arrayContaining([key, second, guarded.apiKey, variables?.["ANTHROPIC_WORK_SECRET"]]));
    expect(body).toHaveLength(5);
    expect((await admin(guarded.url, "GET", "credentials")).status).toBe(401);
    await using open = await startRig();
    expect((await call(open, "GET", "credentials")).status).toBe(400);
  });
});

describe("the server", () => {
  test("reports its health to any client", async () => {
    await using rig = await startRig();
    expect((await fetch(`${rig.simulator.url}/healthz`)).status).toBe(200);
  });

  test("survives requests that aren't HTTP, have no valid URL, or are cut off", async () => {
    await using rig = await startRig();
    for (const text of [
      "nonsense\r\n\r\n",
      "GET // HTTP/1.1\r\nhost: x\r\n\r\n",
      "POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
    ]) {
      const socket = connect(rig.simulator.port, "127.0.0.1");
      await new Promise<void>((resolve) => {
        socket.on("error", () => undefined);
        socket.once("close", () => resolve());
        socket.end(text);
        socket.resume();
      });
    }
    expect((await rig.client.stats()).status).toBe(200);
    rig.simulator.assertNoViolations();
  });

  test("rejects a port that is in use", async () => {
    await using rig = await startRig();
    await expect(startSimulator({ port: rig.simulator.port })).rejects.toThrow("EADDRINUSE");
  });
});

describe("the simulator's memory", () => {
  test("is limited: it forgets the oldest stopped items with their sessions and tokens", async () => {
    await using rig = await startRig({ limits: { recordsKept: 2 } });
    const first = rig.simulator.enqueue(rig.environmentId);
    const work = await rig.client.take();
    const worker = workerOf(rig.client, work);
    rig.simulator.stopItem(first.id, { force: true });
    for (let i = 0; i < 2; i += 1) rig.simulator.stopItem(rig.simulator.enqueue(rig.environmentId).id, { force: true });
    expect(rig.simulator.items()).toHaveLength(2);
    expect(rig.simulator.sessions()).toHaveLength(2);
    expect(() => rig.simulator.item(first.id)).toThrow("not found");
    expect((await worker.beat(work.id, "NO_HEARTBEAT")).status).toBe(401);
    expect(await rig.client.listAll()).toHaveLength(2);
  });

  test("is summarized in a report", async () => {
    await using rig = await startRig();
    for (let i = 0; i < 3; i += 1) rig.simulator.enqueue(rig.environmentId);
    const waits = [1000, 2000];
    for (const wait of waits) {
      await rig.clock.advance(wait);
      const work = await rig.client.take();
      await rig.client.ack(work.id);
      const worker = workerOf(rig.client, work);
      await worker.mustBeat(work.id, "NO_HEARTBEAT");
      await worker.stop(work.id, true);
    }
    const report = rig.simulator.report();
    expect(report).toMatchObject({
      total: 3,
      served: 2,
      beats: 2,
      items: { queued: 1, stopped: 2 },
      requests: { "ack 200": 2, "heartbeat 200": 2, "stop 204": 2 },
    });
    expect(report.queuedToFirstBeat).toEqual({ count: 2, mean: 2, p50: 1, p90: 3, p99: 3, max: 3 });
  });
});

describe("waitFor", () => {
  test("names what it waited for when it times out", async () => {
    await using rig = await startRig();
    await expect(rig.simulator.waitFor(() => false, { what: "rain", timeoutMs: 1 })).rejects.toThrow(
      "not within 1 ms: rain",
    );
  });

  test("throws what its predicate throws", async () => {
    await using rig = await startRig();
    await expect(rig.simulator.waitFor(() => rig.simulator.item("work_none"))).rejects.toThrow("not found");
  });
});
