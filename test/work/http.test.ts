import { execFile } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import { HttpFailure, type HttpRequest, MAX_REFUSAL_BYTES, WorkHttp } from "../../src/work/http.ts";
import { selfSigned } from "../../testbed/cluster/certificate.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { BYTE_CHUNKS, CHUNKED, endless } from "./hostile-acts.ts";
import { BEAT, STATS } from "./samples.ts";
import { failure, LONG_MS, Setup } from "./setup.ts";
import { json, raw, StrictServer, silence } from "./strict-server.ts";

const GET = {
  method: "GET",
  path: "/",
  headers: {},
  lane: "bulk",
  timeoutMs: LONG_MS,
  maxBytes: 1_000,
} as const satisfies Omit<HttpRequest, "origin">;

async function httpFailure(promise: Promise<unknown>): Promise<HttpFailure> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof HttpFailure) return error;
  throw error ?? new Error("the request succeeded");
}

describe("connections", () => {
  it("are reused", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = json(200, STATS);
    for (let i = 0; i < 20; i += 1) await setup.client.stats();
    // Two: undici rests a connection for one turn of the event loop, so that an immediate second call opens another.
    expect(setup.server.connections).toBeLessThanOrEqual(2);
  });

  it("are shared by all clients of an origin", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = json(200, STATS);
    const others = ["env_a", "env_b", "env_c"].map((environmentId) => setup.clientOf({ environmentId }));
    for (const client of others) await client.stats();
    expect(setup.server.connections).toBeLessThanOrEqual(2);
  });

  it("are limited; a request that timed out without one was never sent", async () => {
    const clock = new VirtualClock();
    await using server = await StrictServer.start();
    const http = new WorkHttp({ clock, maxConnectionsPerOrigin: 1 });
    server.fallback = silence;
    const request = { ...GET, origin: server.origin };
    const first = httpFailure(http.send({ ...request, timeoutMs: 2_000 }));
    await server.sawRequests(1);
    const second = httpFailure(http.send({ ...request, path: "/second", timeoutMs: 1_000 }));
    await clock.advance(1_000);
    expect(await second).toMatchObject({ kind: "timeout", sent: false, times: undefined });
    await clock.advance(1_000);
    expect(await first).toMatchObject({ kind: "timeout", sent: true });
    server.fallback = raw(200, "ok");
    const third = await http.send({ ...request, path: "/third" });
    expect(third.status).toBe(200);
    expect(server.seen.map(({ url }) => url)).toEqual(["/", "/third"]);
    await http.close();
  });

  it("of protocol calls are separate: long polls that use all others do not delay a heartbeat", async () => {
    await using server = await StrictServer.start();
    await using setup = await Setup.start();
    const http = new WorkHttp({ clock: realClock, maxConnectionsPerOrigin: 2 });
    const client = setup.clientOf({ baseUrl: server.origin, http });
    server.fallback = silence;
    const stop = new AbortController();
    const polls = Array.from({ length: 5 }, () => failure(client.poll({ blockMs: 999, signal: stop.signal })));
    await server.sawRequests(2);
    server.fallback = json(200, BEAT);
    expect((await client.heartbeat("work_01", { expected: "x" })).value.kind).toBe("beat");
    stop.abort();
    const kinds = (await Promise.all(polls)).map(({ kind, maybeApplied }) => `${kind} ${maybeApplied}`);
    expect(kinds.sort()).toEqual([...Array(3).fill("aborted false"), ...Array(2).fill("aborted true")]);
    await http.close();
  });

  it("that the server closed while idle are not reused", async () => {
    await using setup = await Setup.start();
    setup.server.fallback = json(200, STATS, { connection: "close" });
    await setup.client.stats();
    await setup.client.stats();
    expect(setup.server.connections).toBe(2);
  });

  it("close after the requests in flight have ended", async () => {
    await using server = await StrictServer.start();
    const http = new WorkHttp({ clock: realClock });
    let finish = () => {};
    server.next((response) => {
      finish = () => response.end("ok");
    });
    const reply = http.send({ ...GET, origin: server.origin });
    await server.sawRequests(1);
    const closed = http.close();
    finish();
    expect((await reply).status).toBe(200);
    await closed;
    expect(await httpFailure(http.send({ ...GET, origin: server.origin }))).toMatchObject({ sent: false });
  });

  it("can all be aborted at once", async () => {
    await using server = await StrictServer.start();
    const http = new WorkHttp({ clock: realClock });
    server.next(silence);
    const reply = httpFailure(http.send({ ...GET, origin: server.origin }));
    await server.sawRequests(1);
    await http.destroy();
    expect(await reply).toMatchObject({ kind: "network", sent: true });
  });
});

describe("a refusal's body", () => {
  it("is read beyond the limit of a success, up to its own limit", async () => {
    await using server = await StrictServer.start();
    const http = new WorkHttp({ clock: realClock });
    server.next(raw(400, "x".repeat(10_000)), raw(400, "x".repeat(2_000_000)), raw(200, "x".repeat(10_000)));
    const request = { ...GET, origin: server.origin };
    const whole = await http.send(request);
    expect(whole.body).toHaveLength(10_000);
    expect(whole).not.toHaveProperty("partial");
    const part = await http.send(request);
    expect(part.partial).toBe("too-large");
    // One read of the socket may exceed the limit.
    expect(part.body.length).toBeLessThan(MAX_REFUSAL_BYTES * 2 + 1);
    expect(await httpFailure(http.send(request))).toMatchObject({ kind: "too-large", status: 200 });
    await http.close();
  });

  it("that hangs until the caller aborts is an abort, not a refusal", async () => {
    await using server = await StrictServer.start();
    const http = new WorkHttp({ clock: realClock });
    const stop = new AbortController();
    server.next((response) => {
      response.writeHead(401);
      response.write("{");
    });
    // undici publishes this event when it has read the head of a reply; the abort follows its handling.
    const onHead = () => void setImmediate(() => stop.abort());
    subscribe("undici:request:headers", onHead);
    const failed = await httpFailure(http.send({ ...GET, origin: server.origin, signal: stop.signal }));
    unsubscribe("undici:request:headers", onHead);
    expect(failed).toMatchObject({ kind: "aborted", sent: true, status: 401 });
    await http.close();
  });
});

it("a request that has ended leaves no timer", async () => {
  const clock = new VirtualClock();
  await using setup = await Setup.start({ clock });
  setup.server.next(json(200, STATS), raw(500, ""), (_, __, socket) => void socket.destroy());
  await setup.client.stats();
  await failure(setup.client.stats());
  await failure(setup.client.stats());
  expect(clock.pendingTimers).toBe(0);
});

describe("informational replies", () => {
  it("are not a reply on their own", async () => {
    await using setup = await Setup.start();
    setup.server.next((response, _, socket) => {
      response.writeEarlyHints({ link: "</x>; rel=preload" }, () => socket.end());
    });
    const error = await failure(setup.client.stats());
    expect(error).toMatchObject({ kind: "network", maybeApplied: true });
    expect(error).not.toHaveProperty("status");
  });

  it("are skipped", async () => {
    await using setup = await Setup.start();
    setup.server.next((response) => {
      response.writeEarlyHints({ link: "</x>; rel=preload" });
      response.end(JSON.stringify(STATS));
    });
    expect((await setup.client.stats()).value.depth).toBe(3);
  });
});

const NAME = "work-api.test";

async function tlsSetup() {
  const { certificate: cert, key } = selfSigned([NAME, "127.0.0.1"]);
  const server = await StrictServer.start(createTlsServer({ cert, key }) as unknown as Server);
  server.fallback = json(200, STATS);
  const folder = await mkdtemp(join(tmpdir(), "berth-tls-"));
  const ca = join(folder, "ca.pem");
  await writeFile(ca, cert);
  return {
    server,
    ca,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
}

/** Runs the call with only these variables, so that the machine's proxies and CAs have no influence. */
async function oneCall(baseUrl: string, env: Record<string, string>): Promise<Record<string, unknown>> {
  const script = fileURLToPath(new URL("one-stats-call.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, baseUrl], { env });
  return JSON.parse(stdout) as Record<string, unknown>;
}

describe("TLS", () => {
  it("refuses a certificate of an unknown CA, and says how to fix it", async () => {
    await using tls = await tlsSetup();
    const result = await oneCall(`https://127.0.0.1:${tls.server.port}`, {});
    expect(result).toMatchObject({ kind: "network", maybeApplied: false });
    expect(result["message"]).toContain("NODE_EXTRA_CA_CERTS");
    expect(tls.server.seen).toHaveLength(0);
  });

  it("accepts a certificate of a CA in NODE_EXTRA_CA_CERTS", async () => {
    await using tls = await tlsSetup();
    const result = await oneCall(`https://127.0.0.1:${tls.server.port}`, { NODE_EXTRA_CA_CERTS: tls.ca });
    expect(result).toEqual({ depth: 3 });
  });

  it("refuses a certificate for another name", async () => {
    await using tls = await tlsSetup();
    const result = await oneCall(`https://localhost:${tls.server.port}`, { NODE_EXTRA_CA_CERTS: tls.ca });
    expect(result).toMatchObject({ kind: "network", maybeApplied: false });
    expect(result["message"]).toContain("the certificate is for another name");
  });
});

/** A proxy that tunnels every CONNECT to one port, or refuses it, and answers plain requests itself. */
async function startProxy(options: { tunnelTo?: number; refuse?: number }) {
  const asked: string[] = [];
  const server = createHttpServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.end(JSON.stringify(STATS));
  });
  server.on("connect", (request, socket) => {
    asked.push(`CONNECT ${request.url}`);
    socket.on("error", () => {});
    if (options.tunnelTo === undefined) {
      socket.end(`HTTP/1.1 ${options.refuse ?? 403} No\r\n\r\n`);
      return;
    }
    const target = connect(options.tunnelTo, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      target.pipe(socket).pipe(target);
    });
    target.on("error", () => socket.destroy());
    socket.on("close", () => target.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    asked,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

describe("proxies", () => {
  it("tunnels through HTTPS_PROXY, with TLS to the API itself", async () => {
    await using tls = await tlsSetup();
    await using proxy = await startProxy({ tunnelTo: tls.server.port });
    const env = { HTTPS_PROXY: proxy.url, NODE_EXTRA_CA_CERTS: tls.ca };
    expect(await oneCall(`https://${NAME}`, env)).toEqual({ depth: 3 });
    expect(proxy.asked).toEqual([`CONNECT ${NAME}:443`]);
    expect(tls.server.seen).toHaveLength(1);
  });

  it("names a proxy that refuses, and reports the request as not sent", async () => {
    await using proxy = await startProxy({ refuse: 407 });
    const result = await oneCall(`https://${NAME}`, { HTTPS_PROXY: proxy.url });
    expect(result).toMatchObject({ kind: "network", maybeApplied: false });
    expect(result["message"]).toContain("HTTPS_PROXY");
  });

  it("uses HTTP_PROXY for a plain origin", async () => {
    await using setup = await Setup.start();
    await using proxy = await startProxy({});
    const http = new WorkHttp({
      clock: setup.clock,
      proxy: { httpProxy: proxy.url, noProxy: "" },
    });
    const client = setup.clientOf({ baseUrl: `http://${NAME}`, environmentId: "env_01", http });
    expect((await client.stats()).value.depth).toBe(3);
    expect(proxy.asked).toEqual([`GET http://${NAME}/v1/environments/env_01/work/stats`]);
    await http.close();
  });

  it("never uses a proxy for a loopback origin", async () => {
    await using setup = await Setup.start();
    await using proxy = await startProxy({});
    const http = new WorkHttp({
      clock: setup.clock,
      proxy: { httpProxy: proxy.url, noProxy: "" },
    });
    setup.server.fallback = json(200, STATS);
    await setup.clientOf({ http }).stats();
    expect(proxy.asked).toEqual([]);
    expect(setup.server.seen).toHaveLength(1);
    await http.close();
  });
});

/** Node's own memory, the child's heap, and two pages (8 MB each) per concurrent call. */
const AT_A_TIME = 4;
const MAX_RSS_BYTES = 400_000_000;

it.each([
  ["in large pieces", Buffer.from(`10000\r\n${" ".repeat(0x10000)}\r\n`)],
  ["byte by byte", BYTE_CHUNKS],
])(
  "endless bodies %s use no more memory than their limit",
  async (_name, piece) => {
    await using server = await StrictServer.start();
    server.fallback = endless(CHUNKED, piece);
    const script = fileURLToPath(new URL("read-endless-lists.ts", import.meta.url));
    const argv = ["--max-old-space-size=64", script, server.origin, String(AT_A_TIME)];
    const { stdout } = await promisify(execFile)(process.execPath, argv);
    const { kinds, maxRssBytes } = JSON.parse(stdout) as { kinds: Record<string, number>; maxRssBytes: number };
    expect(kinds).toEqual({ protocol: AT_A_TIME });
    expect(maxRssBytes).toBeLessThan(MAX_RSS_BYTES);
  },
  600_000,
);
