import { once } from "node:events";
import { createServer } from "node:net";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { createMetrics } from "../../src/observe/metrics.ts";
import { MAX_REPLY_BYTES } from "../../src/work/caller.ts";
import { WorkHttp } from "../../src/work/http.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { apiError, BEAT, ENVIRONMENT, KEY, POLLED, QUEUED, STARTING, STATS } from "./samples.ts";
import { failure, itemCall, Setup } from "./setup.ts";
import { type Act, json, raw, silence } from "./strict-server.ts";

describe("kinds of HTTP statuses", () => {
  it.each([
    [400, "bad-request", false],
    [401, "auth", false],
    [403, "auth", false],
    [404, "not-found", false],
    [405, "bad-request", false],
    [408, "timeout", true],
    [409, "conflict", false],
    [410, "bad-request", false],
    [412, "precondition", false],
    [413, "bad-request", false],
    [422, "bad-request", false],
    [429, "rate-limited", false],
    [500, "server", true],
    [502, "server", true],
    [503, "server", true],
    [504, "server", true],
    [529, "server", true],
    [304, "protocol", false],
  ] as const)("%i is %s", async (status, kind, maybeApplied) => {
    await using setup = await Setup.start();
    setup.server.next(status === 304 ? raw(304, "") : json(status, apiError("some_error", "what the server says")));
    const error = await failure(setup.client.ack("work_01"));
    expect(error).toMatchObject({ kind, status, maybeApplied, call: "ack", code: "WorkApi", name: "WorkApiError" });
    expect(error.message).toContain("work_01");
    if (status !== 304) expect(error.message).toContain(`(${status} some_error: what the server says)`);
    expect(setup.server.seen).toHaveLength(1);
  });

  it.each(["ack", "heartbeat", "stop"] as const)("does not retry a failed %s", async (name) => {
    await using setup = await Setup.start();
    setup.server.fallback = json(503, apiError("overloaded_error", "busy"), { "retry-after": "0" });
    await failure(itemCall(setup.client, name, "work_01"));
    await failure(itemCall(setup.client, name, "work_01"));
    expect(setup.server.seen).toHaveLength(2);
  });
});

describe("messages say how to fix the error", () => {
  it.each([
    [401, "poll", /rejected; put a valid key of environment env_011.* spec\.api\.keySecretRef/],
    [403, "poll", /not an organization's API key/],
    [404, "poll", /environment env_011.* is unknown; check spec\.environmentId/],
    [404, "ack", /the work item is unknown/],
    [429, "poll", /too many requests/],
  ] as const)("%i on %s", async (status, call, message) => {
    await using setup = await Setup.start();
    setup.server.next(json(status, apiError("e", "m")));
    const error = await failure(call === "poll" ? setup.client.poll() : setup.client.ack("work_01"));
    expect(error.message).toMatch(message);
  });

  it("says that an API key was rejected", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(401, apiError("e", "m")));
    const error = await failure(setup.client.retrieve("work_01", { apiKey: "sk-ant-api03-abcdefgh" }));
    expect(error.message).toContain("the API key was rejected");
  });

  it("shows a server's text in one line, truncated", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(400, apiError("e", `first\n\u001b[31msecond\u2028third ${"long ".repeat(1000)}`)));
    const { message } = await failure(setup.client.poll());
    expect(message).toContain("e: first [31msecond third long");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none must be left
    expect(message).not.toMatch(/[\n\r\u0000-\u001f\u2028]/);
    expect(message.length).toBeLessThan(700);
  });

  it("keeps the request id for the platform's support", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(500, apiError("e", "m"), { "request-id": "req_011" }));
    expect((await failure(setup.client.poll())).requestId).toBe("req_011");
  });

  it.each([
    ["a web page", raw(502, "<html><body>Bad gateway</body></html>", { "content-type": "text/html" })],
    ["nothing", raw(502, "")],
    ["other JSON", json(502, [1, 2])],
    ["an error that is a text", json(502, { error: "down" })],
  ])("reports the status of a refusal with %s", async (_, act) => {
    await using setup = await Setup.start();
    setup.server.next(act);
    const error = await failure(setup.client.stats());
    expect(error).toMatchObject({ kind: "server", status: 502 });
    expect(error.message).not.toContain("<html");
  });
});

describe("Retry-After", () => {
  it.each([
    ["seconds", { "retry-after": "7" }, 7_000],
    ["a fraction of a second", { "retry-after": "0.5" }, 500],
    [
      "an HTTP date, by the server's clock",
      { "retry-after": "Wed, 01 Apr 2026 10:00:30 GMT", date: "Wed, 01 Apr 2026 10:00:07 GMT" },
      23_000,
    ],
    [
      "a date in the past",
      { "retry-after": "Wed, 01 Apr 2026 10:00:00 GMT", date: "Wed, 01 Apr 2026 10:00:07 GMT" },
      0,
    ],
    ["a day, which is cut", { "retry-after": "86400" }, 300_000],
  ])("is parsed as %s", async (_, headers, expected) => {
    await using setup = await Setup.start();
    setup.server.next(json(429, apiError("rate_limit_error", "slow down"), headers as Record<string, string>));
    expect(await failure(setup.client.poll())).toMatchObject({ kind: "rate-limited", retryAfterMs: expected });
  });

  it.each([
    ["absent", undefined],
    ["neither a number nor a date", "soon"],
    ["negative", "-5"],
    ["a number and a word", "5 apples"],
  ])("is ignored if it is %s", async (_, value) => {
    await using setup = await Setup.start();
    setup.server.next(json(503, apiError("e", "m"), value === undefined ? {} : { "retry-after": value }));
    expect(await failure(setup.client.poll())).not.toHaveProperty("retryAfterMs");
  });
});

describe("does not follow a redirect", () => {
  it.each([301, 302, 303, 307, 308])("%i", async (status) => {
    await using setup = await Setup.start();
    await using other = await Setup.start();
    const location = `${other.server.origin}/v1/?key=${KEY}`;
    setup.server.next(raw(status, "", { location }));
    const error = await failure(setup.client.stop("work_01", { force: true }));
    expect(error).toMatchObject({ kind: "protocol", status, maybeApplied: false });
    expect(error.message).toContain(`redirected to ${other.server.origin}, which Berth does not follow`);
    expect(error.message).toContain("spec.api.baseUrl");
    expect(error.message).not.toContain(KEY);
    expect(other.server.seen).toHaveLength(0);
    expect(setup.server.seen).toHaveLength(1);
  });
});

it.each(["file:///etc/passwd", "data:text/html,x"])(
  "names no address for a redirect to %s, which can't be an API",
  async (location) => {
    await using setup = await Setup.start();
    setup.server.next(raw(302, "", { location }));
    const error = await failure(setup.client.stop("work_01", { force: true }));
    expect(error).toMatchObject({ kind: "protocol", status: 302, maybeApplied: false });
    expect(error.message).toContain("the answer is not from this API; check spec.api.baseUrl");
  },
);

describe("a 200 that is not of this API", () => {
  const wrong: [string, Act][] = [
    ["an empty body", raw(200, "")],
    [
      "a web page",
      raw(200, "<!doctype html><html>Sign in to the hotel's WLAN</html>", { "content-type": "text/html" }),
    ],
    ["truncated JSON", raw(200, JSON.stringify(STARTING).slice(0, 60))],
    ["bytes that are not UTF-8", raw(200, Buffer.from([0x22, 0xff, 0xfe, 0x22]))],
    ["a list", json(200, [])],
    ["a number", json(200, 5)],
    ["an empty object", json(200, {})],
    ["a compressed body", raw(200, gzipSync(JSON.stringify(STARTING)), { "content-encoding": "gzip" })],
    ["too much", raw(200, `"${"x".repeat(MAX_REPLY_BYTES)}"`)],
  ];
  it.each(wrong)("%s", async (_, act) => {
    await using setup = await Setup.start();
    setup.server.fallback = act;
    const calls = [setup.client.ack("work_01"), setup.client.poll(), setup.client.stats()];
    for (const error of await Promise.all(calls.map(failure))) {
      expect(error).toMatchObject({ kind: "protocol", status: 200, maybeApplied: true });
      expect(error.message).toContain("spec.api.baseUrl");
    }
    expect(await failure(setup.client.heartbeat("work_01", { expected: "x" }))).toMatchObject({ kind: "protocol" });
  });

  it.each(wrong.filter(([name]) => name !== "an empty body"))("a stop answered with %s fails", async (_, act) => {
    await using setup = await Setup.start();
    setup.server.next(act);
    const error = await failure(setup.client.stop("work_01", { force: true }));
    expect(error).toMatchObject({ kind: "protocol", maybeApplied: true });
  });

  it("a compressed one is reported as compressed", async () => {
    await using setup = await Setup.start();
    setup.server.next(raw(200, JSON.stringify(STARTING), { "content-encoding": "br" }));
    expect((await failure(setup.client.ack("work_01"))).message).toContain("uncompressed");
  });

  it("an id with an invalid UTF-8 byte is not replaced by another id", async () => {
    await using setup = await Setup.start();
    const [head, tail] = JSON.stringify(QUEUED).split("session_01");
    setup.server.next(
      raw(200, Buffer.concat([Buffer.from(`${head}session_`), Buffer.from([0xff]), Buffer.from(`${tail}`)])),
    );
    expect((await failure(setup.client.poll())).kind).toBe("protocol");
  });

  it("an answer about another item is rejected", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = json(200, { ...STARTING, id: "work_02" });
    expect((await failure(setup.client.ack("work_01"))).kind).toBe("protocol");
    expect((await failure(setup.client.stop("work_01", { force: true }))).kind).toBe("protocol");
    expect((await failure(setup.client.retrieve("work_01", { apiKey: "sk-ant-api03-abc" }))).kind).toBe("protocol");
  });

  it("names the malformed field but never its value", async () => {
    await using setup = await Setup.start();
    setup.server.next(json(200, { ...POLLED, secret: { sessions_token: "sk-ant-req-abcdef" } }));
    const error = await failure(setup.client.poll());
    expect(error.message).toContain("the work item's secret is not a text or null");
    expect(error.message).not.toContain("abcdef");
  });
});

describe("broken replies", () => {
  it("reports a truncated body as a network error that may have been applied", async () => {
    await using setup = await Setup.start();
    setup.server.next((response, _, socket) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write('{"id":', () => socket.destroy());
    });
    const error = await failure(setup.client.ack("work_01"));
    expect(error).toMatchObject({ kind: "network", maybeApplied: true, status: 200 });
  });

  it("reports a refusal with a truncated body as that refusal", async () => {
    await using setup = await Setup.start();
    setup.server.next((response, _, socket) => {
      response.writeHead(401, { "content-length": "1000" });
      response.write('{"error":', () => socket.destroy());
    });
    expect(await failure(setup.client.ack("work_01"))).toMatchObject({ kind: "auth", maybeApplied: false });
  });

  it("reports a refusal with an endless body as that refusal, without reading to its end", async () => {
    await using setup = await Setup.start();
    setup.server.next((response) => {
      response.writeHead(403);
      const more = () => {
        while (!response.destroyed && response.write("x".repeat(16_384)));
      };
      response.on("drain", more);
      more();
    });
    expect(await failure(setup.client.poll())).toMatchObject({ kind: "auth", status: 403 });
  });

  it("cuts off an endless success at its size limit", async () => {
    await using setup = await Setup.start();
    let written = 0;
    setup.server.next((response) => {
      response.writeHead(200);
      const more = () => {
        while (!response.destroyed && response.write("x".repeat(65_536))) written += 65_536;
      };
      response.on("drain", more);
      more();
    });
    expect(await failure(setup.client.poll())).toMatchObject({ kind: "protocol", maybeApplied: true });
    expect(written).toBeLessThan(MAX_REPLY_BYTES + 16 * 1024 * 1024);
  });

  it("reports a reset after the request was read as possibly applied", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = (_, __, socket) => socket.resetAndDestroy();
    for (const name of ["ack", "heartbeat", "stop"] as const) {
      const error = await failure(itemCall(setup.client, name, "work_01"));
      expect(error).toMatchObject({ kind: "network", maybeApplied: true, call: name });
    }
    expect(setup.server.seen).toHaveLength(3);
  });

  it("reports a reset before the request was read the same way, because the two can't be told apart", async () => {
    await using setup = await Setup.start();
    let connections = 0;
    const server = createServer((socket) => {
      connections += 1;
      socket.on("error", () => {});
      socket.resetAndDestroy();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const client = setup.clientOf({ baseUrl: `http://127.0.0.1:${address.port}` });
    const error = await failure(client.ack("work_01"));
    expect(error.kind).toBe("network");
    expect(connections).toBe(1);
    server.close();
  });

  it("reports a refused connection as not applied", async () => {
    await using setup = await Setup.start();
    const client = setup.clientOf({ baseUrl: await unusedOrigin() });
    const error = await failure(client.ack("work_01"));
    expect(error).toMatchObject({ kind: "network", maybeApplied: false });
    expect(error.message).toMatch(/before the request was sent .*ECONNREFUSED.*; check spec\.api\.baseUrl/);
  });

  it("mentions DNS for a host that does not exist", async () => {
    await using setup = await Setup.start();
    const http = new WorkHttp({ clock: setup.clock, proxy: { noProxy: "*" } });
    const client = setup.clientOf({ baseUrl: "http://work-api.invalid", http });
    const error = await failure(client.poll());
    expect(error).toMatchObject({ kind: "network", maybeApplied: false });
    expect(error.message).toContain("DNS");
    await http.close();
  });
});

describe("timeouts", () => {
  it("a silent server ends a protocol call after 1.5 s", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock });
    const client = setup.clientOf({ protocolTimeoutMs: undefined });
    setup.server.fallback = silence;
    const call = failure(client.ack("work_01"));
    await setup.server.sawRequests(1);
    await clock.advance(1_499);
    expect(await Promise.race([call, Promise.resolve("waits")])).toBe("waits");
    await clock.advance(1);
    const error = await call;
    expect(error).toMatchObject({ kind: "timeout", maybeApplied: true });
    expect(error.message).toContain("no complete answer within 1500 ms");
    expect(clock.pendingTimers).toBe(0);
  });

  it("an urgent list has the protocol's timeout, and a long poll's wait adds to its timeout", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock });
    setup.server.fallback = silence;
    const client = setup.clientOf({ protocolTimeoutMs: 1_500, requestTimeoutMs: 10_000 });
    const ended: string[] = [];
    const calls = Object.entries({
      urgent: client.list({ urgent: true }),
      list: client.list(),
      poll: client.poll({ blockMs: 999 }),
    }).map(([name, call]) => failure(call).then(() => ended.push(`${name} ${clock.monotonic() - start}`)));
    const start = clock.monotonic();
    await setup.server.sawRequests(3);
    await clock.advance(20_000);
    await Promise.all(calls);
    expect(ended).toEqual(["urgent 1500", "list 10000", "poll 10999"]);
  });

  it("a slowly arriving body is limited as a whole", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock, protocolTimeoutMs: 1_500 });
    setup.server.next((response) => {
      response.writeHead(200);
      response.write("[");
    });
    const call = failure(setup.client.heartbeat("work_01", { expected: "x" }));
    await setup.server.sawRequests(1);
    await clock.advance(1_500);
    expect(await call).toMatchObject({ kind: "timeout", maybeApplied: true });
  });

  it("a connection that timed out is not reused", async () => {
    const clock = new VirtualClock();
    await using setup = await Setup.start({ clock, protocolTimeoutMs: 1_500 });
    setup.server.next(silence, json(200, BEAT));
    const call = failure(setup.client.heartbeat("work_01", { expected: "x" }));
    await setup.server.sawRequests(1);
    await clock.advance(1_500);
    await call;
    expect((await setup.client.heartbeat("work_01", { expected: "x" })).value.kind).toBe("beat");
    expect(setup.server.connections).toBe(2);
  });

  it("the caller's signal ends a call, and the error says whether it was sent", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = silence;
    const controller = new AbortController();
    const call = failure(setup.client.ack("work_01", { signal: controller.signal }));
    await setup.server.sawRequests(1);
    controller.abort();
    expect(await call).toMatchObject({ kind: "aborted", maybeApplied: true });
    const late = await failure(setup.client.ack("work_01", { signal: controller.signal }));
    expect(late).toMatchObject({ kind: "aborted", maybeApplied: false });
    expect(setup.server.seen).toHaveLength(1);
  });
});

describe("metrics", () => {
  it("count every call by its outcome", async () => {
    const metrics = createMetrics();
    await using setup = await Setup.start({ metrics });
    setup.server.next(json(200, STATS), json(429, apiError("e", "m")), json(200, QUEUED), (_, __, socket) => {
      socket.destroy();
    });
    await setup.client.stats();
    await failure(setup.client.poll());
    await setup.client.ack("work_01");
    await failure(setup.client.stop("work_01", { force: true }));
    const text = await metrics.registry.metrics();
    expect(text).toContain('berth_work_api_requests_total{call="stats",code="200"} 1');
    expect(text).toContain('berth_work_api_requests_total{call="poll",code="429"} 1');
    expect(text).toContain('berth_work_api_requests_total{call="ack",code="200"} 1');
    expect(text).toContain('berth_work_api_requests_total{call="stop",code="network"} 1');
    expect(text).toContain('berth_work_api_request_seconds_count{call="ack"} 1');
    expect(text).not.toContain(ENVIRONMENT);
  });
});

async function unusedOrigin(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  server.close();
  await once(server, "close");
  return `http://127.0.0.1:${address.port}`;
}
