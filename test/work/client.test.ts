import { describe, expect, it } from "vitest";
import type { WorkApiClient } from "../../src/work/client.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { BEAT, ENVIRONMENT, KEY, POLLED, QUEUED, REFUSED_BEAT, SECRET, STARTING, STATS } from "./samples.ts";
import { failure, Setup } from "./setup.ts";
import { type Act, json, raw } from "./strict-server.ts";

const BASE = `/v1/environments/${ENVIRONMENT}/work`;

const EVERY_CALL_SENDS = {
  "anthropic-worker-id": "berth-0",
  accept: "application/json",
  "accept-encoding": "identity",
  "anthropic-version": "2023-06-01",
  "anthropic-beta": "managed-agents-2026-04-01",
};
const WITH_KEY = { ...EVERY_CALL_SENDS, authorization: `Bearer ${KEY}` };
const WITH_API_KEY = { ...EVERY_CALL_SENDS, "x-api-key": "sk-ant-api03-abcdefgh" };
const EMPTY_POST = { ...WITH_KEY, "content-length": "0" };
const API_KEY = "sk-ant-api03-abcdefgh";

interface Case {
  readonly name: string;
  readonly act: Act;
  readonly run: (client: WorkApiClient) => Promise<unknown>;
  readonly sends: { method: string; url: string; headers: Record<string, string>; body: string };
}

const cases: Case[] = [
  {
    name: "poll without options",
    act: json(200, null),
    run: (c) => c.poll(),
    sends: { method: "GET", url: `${BASE}/poll`, headers: WITH_KEY, body: "" },
  },
  {
    name: "poll that waits",
    act: json(200, POLLED),
    run: (c) => c.poll({ blockMs: 999, reclaimOlderThanMs: 15_000 }),
    sends: {
      method: "GET",
      url: `${BASE}/poll?block_ms=999&reclaim_older_than_ms=15000`,
      headers: WITH_KEY,
      body: "",
    },
  },
  {
    name: "ack",
    act: json(200, STARTING),
    run: (c) => c.ack("work_01"),
    sends: { method: "POST", url: `${BASE}/work_01/ack`, headers: EMPTY_POST, body: "" },
  },
  {
    name: "first heartbeat",
    act: json(200, BEAT),
    run: (c) => c.heartbeat("work_01", { expected: NO_HEARTBEAT }),
    sends: {
      method: "POST",
      url: `${BASE}/work_01/heartbeat?expected_last_heartbeat=NO_HEARTBEAT`,
      headers: EMPTY_POST,
      body: "",
    },
  },
  {
    name: "later heartbeat with a TTL",
    act: json(200, BEAT),
    run: (c) => c.heartbeat("work_01", { expected: "2026-04-01T10:00:02.000001+00:00", desiredTtlSeconds: 60 }),
    sends: {
      method: "POST",
      url: `${BASE}/work_01/heartbeat?expected_last_heartbeat=2026-04-01T10%3A00%3A02.000001%2B00%3A00&desired_ttl_seconds=60`,
      headers: EMPTY_POST,
      body: "",
    },
  },
  {
    name: "forced stop",
    act: raw(204, ""),
    run: (c) => c.stop("work_01", { force: true }),
    sends: {
      method: "POST",
      url: `${BASE}/work_01/stop`,
      headers: { ...WITH_KEY, "content-type": "application/json", "content-length": "14" },
      body: '{"force":true}',
    },
  },
  {
    name: "graceful stop",
    act: raw(204, ""),
    run: (c) => c.stop("work_01", { force: false }),
    sends: {
      method: "POST",
      url: `${BASE}/work_01/stop`,
      headers: { ...WITH_KEY, "content-type": "application/json", "content-length": "15" },
      body: '{"force":false}',
    },
  },
  {
    name: "stats",
    act: json(200, STATS),
    run: (c) => c.stats(),
    sends: { method: "GET", url: `${BASE}/stats`, headers: WITH_KEY, body: "" },
  },
  {
    name: "list",
    act: json(200, { data: [QUEUED], next_page: null }),
    run: (c) => c.list(),
    sends: { method: "GET", url: `${BASE}?limit=1000`, headers: WITH_KEY, body: "" },
  },
  {
    name: "list of a page",
    act: json(200, { data: [], next_page: "p3" }),
    run: (c) => c.list({ page: "p2&x=/?" }),
    sends: { method: "GET", url: `${BASE}?limit=1000&page=p2%26x%3D%2F%3F`, headers: WITH_KEY, body: "" },
  },
  {
    name: "retrieve",
    act: json(200, QUEUED),
    run: (c) => c.retrieve("work_01", { apiKey: API_KEY }),
    sends: { method: "GET", url: `${BASE}/work_01`, headers: WITH_API_KEY, body: "" },
  },
  {
    name: "update",
    act: json(200, QUEUED),
    run: (c) => c.update("work_01", { pod: "a", old: null }, { apiKey: API_KEY }),
    sends: {
      method: "POST",
      url: `${BASE}/work_01`,
      headers: { ...WITH_API_KEY, "content-type": "application/json", "content-length": "35" },
      body: '{"metadata":{"pod":"a","old":null}}',
    },
  },
];

describe("every call sends exactly", () => {
  it.each(cases)("$name", async ({ act, run, sends }) => {
    await using setup = await Setup.start();
    setup.server.next(act);
    await run(setup.client);
    const { headers, ...rest } = setup.server.last;
    const { host, connection, ...own } = headers;
    expect({ ...rest, headers: own }).toEqual(sends);
    expect(host).toBe(`127.0.0.1:${setup.server.port}`);
    expect(connection).toBe("keep-alive");
    expect(setup.server.seen).toHaveLength(1);
  });

  it("the workspace, below a base URL with a path", async () => {
    await using setup = await Setup.start({ prefix: "/proxy/anthropic/", workspaceId: "wrkspc_01" });
    setup.server.next(json(200, STATS));
    await setup.client.stats();
    expect(setup.server.last.url).toBe(`/proxy/anthropic${BASE}/stats`);
    expect(setup.server.last.headers["anthropic-workspace-id"]).toBe("wrkspc_01");
  });

  it("the current key, without the line break at the end of a file", async () => {
    let key = "sk-ant-oat01-first-key\n";
    await using setup = await Setup.start({ key: () => key });
    setup.server.next(json(200, STATS), json(200, STATS));
    await setup.client.stats();
    expect(setup.server.last.headers.authorization).toBe("Bearer sk-ant-oat01-first-key");
    key = "sk-ant-oat01-second-key";
    await setup.client.stats();
    expect(setup.server.last.headers.authorization).toBe("Bearer sk-ant-oat01-second-key");
  });
});

describe("answers", () => {
  it("a polled item keeps its secret, and an empty queue is null, also as a 204", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, POLLED), json(200, null), raw(204, ""));
    expect((await setup.client.poll()).value).toMatchObject({ id: "work_01", secret: SECRET, state: "queued" });
    expect((await setup.client.poll()).value).toBeNull();
    expect((await setup.client.poll()).value).toBeNull();
  });

  it("an item without a secret has no such field", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, QUEUED));
    expect((await setup.client.poll()).value).not.toHaveProperty("secret");
  });

  it("an acknowledged item has its time of acknowledgement", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, STARTING));
    expect((await setup.client.ack("work_01")).value).toMatchObject({
      state: "starting",
      acknowledged_at: "2026-04-01T10:00:01Z",
    });
  });

  it("a heartbeat reports whether the lease was extended", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, BEAT), json(200, { ...BEAT, lease_extended: false, state: "stopping" }));
    const { type: _, ...beat } = BEAT;
    expect((await setup.client.heartbeat("work_01", { expected: NO_HEARTBEAT })).value).toEqual({ kind: "beat", beat });
    expect((await setup.client.heartbeat("work_01", { expected: "x" })).value).toMatchObject({
      kind: "beat",
      beat: { lease_extended: false, state: "stopping" },
    });
  });

  it("a refused heartbeat has the server's state of the lease", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(412, REFUSED_BEAT));
    expect((await setup.client.heartbeat("work_01", { expected: NO_HEARTBEAT })).value).toEqual({
      kind: "refused",
      current: { state: "active", last_heartbeat: "2026-04-01T10:00:09Z", ttl_seconds: 90 },
    });
  });

  it.each([
    ["an empty body", raw(412, "")],
    ["a web page", raw(412, "<html>", { "content-type": "text/html" })],
    ["another error", json(412, { error: { message: "no" } })],
    ["an unknown state", json(412, { error: { details: { current_state: { state: "odd" } } } })],
  ])("a heartbeat refused with %s counts as refused", async (_, act) => {
    await using setup = await Setup.start();
    setup.server.next(act);
    const { value } = await setup.client.heartbeat("work_01", { expected: NO_HEARTBEAT });
    expect(value).toEqual({ kind: "refused", current: null });
  });

  it.each([
    ["204", raw(204, ""), false],
    ["the stopped item", json(200, { ...QUEUED, state: "stopped" }), false],
    ["409", json(409, { error: { type: "conflict", message: "already stopped" } }), true],
  ])("a stop answered with %s is a success", async (_, act, alreadyStopped) => {
    await using setup = await Setup.start();
    setup.server.next(act);
    expect((await setup.client.stop("work_01", { force: true })).value).toEqual({ alreadyStopped });
  });

  it("a page of the list has its items and the next cursor", async () => {
    await using setup = await Setup.start();
    setup.server.next(
      json(200, { data: [QUEUED, STARTING], next_page: "p2" }),
      json(200, { data: [], next_page: null }),
    );
    const { value } = await setup.client.list();
    expect(value.items.map((item) => item.state)).toEqual(["queued", "starting"]);
    expect(value.nextPage).toBe("p2");
    expect((await setup.client.list({ page: "p2" })).value).toEqual({ items: [], unreadable: [], nextPage: null });
  });

  it("statistics are parsed", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, STATS), json(200, { ...STATS, oldest_queued_at: null, workers_polling: null }));
    const { type: _, ...stats } = STATS;
    expect((await setup.client.stats()).value).toEqual(stats);
    expect((await setup.client.stats()).value).toMatchObject({ oldest_queued_at: null, workers_polling: null });
  });

  it("carry the times of sending and answering, and the server's clock", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock });
    setup.server.next((response) => {
      clock.pause(250);
      response.writeHead(200, { date: "Wed, 01 Apr 2026 10:00:07 GMT" });
      response.end(JSON.stringify(STATS));
    });
    const sentAtMs = clock.monotonic();
    const sentAtWallMs = clock.now();
    const answer = await setup.client.stats();
    expect(answer).toMatchObject({ sentAtMs, sentAtWallMs, answeredAtMs: sentAtMs + 250 });
    expect(answer.serverDateMs).toBe(Date.UTC(2026, 3, 1, 10, 0, 7));
  });

  it("have no server time if the server sends none", async () => {
    await using setup = await Setup.start();
    setup.server.next((response) => {
      response.sendDate = false;
      response.end(JSON.stringify(STATS));
    });
    expect((await setup.client.stats()).serverDateMs).toBeNull();
  });
});

describe("invalid input is not sent", () => {
  it.each([0, 1000, 1.5, -1, Number.NaN])("blockMs %s", async (blockMs) => {
    await using setup = await Setup.start();
    await expect(setup.client.poll({ blockMs })).rejects.toThrow(TypeError);
    expect(setup.server.seen).toHaveLength(0);
  });

  it("options out of range", async () => {
    await using setup = await Setup.start();
    const { client } = setup;
    await expect(client.poll({ reclaimOlderThanMs: 0 })).rejects.toThrow(TypeError);
    await expect(client.heartbeat("w", { expected: "" })).rejects.toThrow(TypeError);
    await expect(client.heartbeat("w", { expected: "x", desiredTtlSeconds: 0 })).rejects.toThrow(TypeError);
    expect(setup.server.seen).toHaveLength(0);
  });

  it.each(["", ".", "..", "\ud800"])("an id that can't be a path segment: %j", async (id) => {
    await using setup = await Setup.start();
    const error = await failure(setup.client.ack(id));
    expect(error).toMatchObject({ kind: "protocol", maybeApplied: false });
    expect(setup.server.seen).toHaveLength(0);
  });

  it.each([
    ["an empty key", ""],
    ["a key of only white space", " \n"],
    ["a key with a line break in it", "sk-ant-oat01-abc\r\nx-evil: 1"],
    ["a key that is not ASCII", "sk-ant-oat01-ключ"],
  ])("%s", async (_, key) => {
    await using setup = await Setup.start({ key: () => key });
    const error = await failure(setup.client.poll());
    expect(error).toMatchObject({ kind: "auth", maybeApplied: false });
    expect(error.message).toContain("spec.api.keySecretRef");
    if (key.trim()) expect(error.message).not.toContain(key.trim());
    expect(setup.server.seen).toHaveLength(0);
  });

  it("a workspace id that would add a header", async () => {
    await using setup = await Setup.start({ workspaceId: "wrkspc_01\r\nx-evil: 1" });
    expect(await failure(setup.client.poll())).toMatchObject({ kind: "bad-request", maybeApplied: false });
    expect(setup.server.seen).toHaveLength(0);
  });

  it.each([
    "not a url",
    "ftp://host/",
    "https://user:secret-word@host/",
    "https://host/?a=secret-word",
    "https://host/#x",
  ])("a base URL %j", async (baseUrl) => {
    await using setup = await Setup.start();
    const make = () => setup.clientOf({ baseUrl });
    expect(make).toThrow(TypeError);
    expect(make).not.toThrow(/secret-word/);
  });
});

describe("ids stay one segment of the path", () => {
  it.each([
    "a/b",
    "../../v1/other",
    "a?b=c#d",
    "%2e%2e",
    "a b\tc\r\nHost: evil",
    "\u0000",
    "ключ-🗝",
    "work;v=1",
    "x".repeat(1000),
    "/".repeat(1000),
  ])("%j", async (id) => {
    await using setup = await Setup.start({ environmentId: id });
    setup.server.next(json(200, { ...STARTING, id }));
    await setup.client.ack(id);
    const parts = setup.server.last.url.split("/");
    expect(parts).toHaveLength(7);
    expect(parts.slice(0, 3)).toEqual(["", "v1", "environments"]);
    expect(decodeURIComponent(parts[3] ?? "")).toBe(id);
    expect(decodeURIComponent(parts[5] ?? "")).toBe(id);
    expect(parts[6]).toBe("ack");
    expect(new URL(setup.server.last.url, "http://h").pathname).toBe(setup.server.last.url);
  });
});
