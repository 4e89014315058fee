import { once } from "node:events";
import { request } from "node:http";
import { connect } from "node:net";
import { describe, expect, test } from "vitest";
import { ConfigError } from "../../src/core/errors.ts";
import { type HealthServerOptions, startHealthServer, startObserveServers } from "../../src/observe/health.ts";
import { type Logger, silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { sendPipelined } from "../support/pipelined-requests.ts";
import { silentConnections } from "../support/silent-connections.ts";

interface Answer {
  readonly status: number;
  readonly text: string;
  readonly headers: Record<string, string | string[] | undefined>;
}

/** Sends one request over its own connection. */
function ask(address: string | undefined, path: string, method = "GET", body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const url = `http://${address}${path}`;
    const asked = request(url, { method, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text, headers: response.headers }));
      response.on("error", reject);
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

/** Sends raw bytes and returns everything that comes back until the server ends the connection. */
function askRaw(address: string | undefined, bytes: string): Promise<string> {
  const [host = "", port = ""] = (address ?? "").split(":");
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(Number(port), host, () => socket.write(bytes));
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      text += chunk;
    });
    socket.on("close", () => resolve(text));
    socket.on("error", reject);
  });
}

const start = (options: Partial<HealthServerOptions>) => startHealthServer({ bindAddress: "127.0.0.1:0", ...options });

/** Metrics that count their renderings. */
function countedMetrics() {
  const { registry, leader } = createMetrics();
  let count = 0;
  Object.assign(leader, {
    collect: () => {
      count += 1;
    },
  });
  return { registry, renderings: () => count };
}

describe("health probes", () => {
  test("/readyz is 200 while every check holds, and lists them", async () => {
    await using server = await start({ ready: { informers: () => true, leader: () => ({ ok: true, message: "" }) } });
    const { status, text } = await ask(server.address, "/readyz");
    expect({ status, text }).toEqual({ status: 200, text: "[+]informers ok\n[+]leader ok\nreadyz ok\n" });
  });

  test("/readyz is 503 and names each failing check with its reason", async () => {
    await using server = await start({
      ready: {
        informers: () => ({ ok: false, message: "pods have not been listed yet" }),
        leader: () => true,
        config: () => false,
      },
    });
    const { status, text } = await ask(server.address, "/readyz");
    expect(status).toBe(503);
    expect(text).toBe(
      "[-]informers failed: pods have not been listed yet\n[+]leader ok\n[-]config failed\nreadyz failed\n",
    );
  });

  test("a check that throws has failed, and its credential is not shown", async () => {
    await using server = await start({
      live: {
        loop: () => {
          throw new Error("stuck with sk-ant-oat01-abcdef");
        },
      },
    });
    const { status, text } = await ask(server.address, "/healthz");
    expect({ status, text }).toEqual({
      status: 503,
      text: "[-]loop failed: stuck with sk-ant-[redacted]\nhealthz failed\n",
    });
  });

  test("checks run again at each probe", async () => {
    let ok = false;
    await using server = await start({ ready: { synced: () => ok } });
    expect((await ask(server.address, "/readyz")).status).toBe(503);
    ok = true;
    expect((await ask(server.address, "/readyz")).status).toBe(200);
    ok = false;
    expect((await ask(server.address, "/readyz")).status).toBe(503);
  });

  test("a failed readiness check does not make the process unhealthy", async () => {
    await using server = await start({ live: {}, ready: { synced: () => false } });
    expect((await ask(server.address, "/healthz")).status).toBe(200);
    expect((await ask(server.address, "/readyz")).status).toBe(503);
  });

  test("a query does not change the path", async () => {
    await using server = await start({ live: {} });
    expect((await ask(server.address, "/healthz?verbose")).status).toBe(200);
  });
});

describe("metrics", () => {
  test("are served in Prometheus' text format", async () => {
    const { registry, leader } = createMetrics();
    leader.set({ lease: "berth" }, 1);
    await using server = await start({ registry });
    const { status, text, headers } = await ask(server.address, "/metrics");
    expect(status).toBe(200);
    expect(headers["content-type"]).toBe(registry.contentType);
    expect(text).toContain('berth_leader{lease="berth"} 1\n');
  });

  test("give a 500 when they cannot be collected, and work again at the next scrape", async () => {
    const { registry, leader } = createMetrics();
    let broken = true;
    Object.assign(leader, {
      collect: () => {
        if (broken) throw new Error("no value");
      },
    });
    await using server = await start({ registry });
    expect(await ask(server.address, "/metrics")).toMatchObject({ status: 500, text: "error: no value\n" });
    broken = false;
    expect((await ask(server.address, "/metrics")).status).toBe(200);
  });

  test("are rendered once for all waiting requests, and again for a later one", async () => {
    const { registry, leader } = createMetrics();
    let renderings = 0;
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    Object.assign(leader, {
      collect: async () => {
        renderings += 1;
        begun.resolve();
        await gate.promise;
      },
    });
    await using server = await start({ registry });
    const first = ask(server.address, "/metrics");
    await begun.promise;
    const others = Array.from({ length: 5 }, () => ask(server.address, "/metrics"));
    // Each of these is answered, so the server has accepted the requests before it.
    for (const _ of others) expect((await ask(server.address, "/")).status).toBe(404);
    gate.resolve();
    const statuses = (await Promise.all([first, ...others])).map(({ status }) => status);
    expect([statuses, renderings]).toEqual([Array.from({ length: 6 }, () => 200), 1]);
    await ask(server.address, "/metrics");
    expect(renderings).toBe(2);
  });

  test("are rendered together for connections that send requests at the same time", async () => {
    const { registry, renderings } = countedMetrics();
    await using server = await start({ registry });
    const { port } = new URL(`http://${server.address}`);
    const sockets = Array.from({ length: 20 }, () => connect(Number(port), "127.0.0.1"));
    // The server accepts one connection a turn. After an answer on each, it has accepted all.
    for (const socket of sockets) socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    await Promise.all(sockets.map((socket) => once(socket, "data")));
    for (const socket of sockets) socket.write("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    await Promise.all(sockets.map((socket) => once(socket.resume(), "close")));
    // One, unless a slow machine delivers some requests later.
    expect(renderings()).toBeLessThan(sockets.length / 2);
  });

  test("are rendered once for a connection that sends hundreds of requests at once, and the connection is closed", async () => {
    const { registry, renderings } = countedMetrics();
    await using server = await start({ registry });
    await sendPipelined(
      server.address,
      Array.from({ length: 400 }, () => "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"),
    );
    expect(renderings()).toBe(1);
    expect((await ask(server.address, "/metrics")).status).toBe(200);
  });
});

describe("requests", () => {
  test("HEAD gets the headers of GET and no body", async () => {
    await using server = await start({ live: {} });
    const got = await ask(server.address, "/healthz");
    const head = await ask(server.address, "/healthz", "HEAD");
    expect(head).toMatchObject({ status: 200, text: "" });
    expect(head.headers["content-length"]).toBe(got.headers["content-length"]);
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])("%s is refused with 405", async (method) => {
    await using server = await start({ live: {} });
    const { status, headers } = await ask(server.address, "/healthz", method, "x");
    expect({ status, allow: headers["allow"] }).toEqual({ status: 405, allow: "GET, HEAD" });
  });

  test("an unknown path gives a 404 that lists the known ones", async () => {
    await using server = await start({ live: {} });
    for (const path of ["/metrics", "/readyz", "/", "/healthz/x", "//healthz", "/%68ealthz", "/..%2fhealthz"]) {
      expect(await ask(server.address, path), path).toMatchObject({
        status: 404,
        text: "not found; try /healthz\n",
      });
    }
  });

  test("a malformed path gives a 404 and logs nothing", async () => {
    const said: unknown[] = [];
    const logger = { ...silentLogger, warn: (...words: unknown[]) => said.push(words) } as Logger;
    await using server = await start({ live: {}, logger });
    for (const path of ["//", "///", "//[", "http://["]) {
      const text = await askRaw(server.address, `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
      expect(text, path).toMatch(/^HTTP\/1\.1 404 /);
    }
    expect(said).toEqual([]);
  });

  test("a body is not parsed as a second request", async () => {
    await using server = await start({ live: {} });
    const body = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    const text = await askRaw(
      server.address,
      `GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length + 1}\r\n\r\n${body}`,
    );
    expect(text.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(text).toMatch(/connection: close/i);
  });

  test("headers that are too long are refused", async () => {
    await using server = await start({ live: {} });
    const text = await askRaw(server.address, `GET /healthz HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`);
    expect(text).toMatch(/^HTTP\/1\.1 431 /);
  });

  test("nonsense is refused and does no harm", async () => {
    await using server = await start({ live: {} });
    expect(await askRaw(server.address, "\u0000\u0001nonsense\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect(await askRaw(server.address, "GET http://[ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).toMatch(
      /^HTTP\/1\.1 [45]\d\d /,
    );
    expect((await ask(server.address, "/healthz")).status).toBe(200);
  });
});

describe("silent connections", () => {
  test.each(["/readyz", "/healthz"])("do not block %s, however many there are", async (path) => {
    await using server = await start({ live: {}, ready: {} });
    using _ = await silentConnections(server.address, 300);
    expect((await ask(server.address, path)).status).toBe(200);
  });

  test("do not block the metrics", async () => {
    const { registry } = createMetrics();
    await using server = await start({ registry });
    using _ = await silentConnections(server.address, 300);
    expect((await ask(server.address, "/metrics")).status).toBe(200);
  });

  test("are allowed in greater numbers on a server for probes than on one for metrics", async () => {
    const { registry } = createMetrics();
    await using metrics = await start({ registry, live: {} });
    await using health = await start({ live: {} });
    const stayed = async ({ address }: { address: string | undefined }) => {
      using silent = await silentConnections(address, 100);
      const first = silent.sockets[0];
      if (first === undefined || first.destroyed) return false;
      const stays = new Promise<boolean>((resolve) => {
        first.once("close", () => resolve(false));
        first.once("data", () => resolve(true));
      });
      first.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
      return await stays;
    };
    expect([await stayed(metrics), await stayed(health)]).toEqual([false, true]);
  });
});

describe("listening", () => {
  test("0 starts nothing", async () => {
    await using server = await start({ bindAddress: "0" });
    expect(server.address).toBeUndefined();
  });

  test("the address has the port that was opened, with IPv6 in brackets", async () => {
    await using server = await start({ bindAddress: "[::1]:0", live: {} });
    expect(server.address).toMatch(/^\[::1\]:\d+$/);
    expect((await ask(server.address, "/healthz")).status).toBe(200);
  });

  test("a port in use is a ConfigError that names it", async () => {
    await using server = await start({ live: {} });
    const again = start({ bindAddress: server.address ?? "", live: {} });
    await expect(again).rejects.toThrow(ConfigError);
    await expect(again).rejects.toThrow(/cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE.*choose another address/);
  });

  test("an invalid address is a ConfigError", async () => {
    await expect(start({ bindAddress: "8080" })).rejects.toThrow(ConfigError);
  });

  test("close ends open connections, and may be called twice", async () => {
    const server = await start({ live: {} });
    const [host = "", port = ""] = (server.address ?? "").split(":");
    const held = connect(Number(port), host);
    await new Promise((resolve) => held.once("connect", resolve));
    const ended = new Promise((resolve) => held.once("close", resolve));
    held.on("error", () => {});
    held.write("GET /healthz HTTP/1.1\r\n");
    await Promise.all([server.close(), server.close(), ended]);
    await expect(ask(server.address, "/healthz")).rejects.toThrow(/ECONNREFUSED/);
  });
});

describe("the two servers of berth run", () => {
  test("metrics on one address, probes on the other", async () => {
    const { registry } = createMetrics();
    const servers = await startObserveServers({
      metricsBindAddress: "127.0.0.1:0",
      healthProbeBindAddress: "127.0.0.1:0",
      registry,
      ready: { synced: () => true },
    });
    expect(servers.metrics.address).not.toBe(servers.health.address);
    expect((await ask(servers.metrics.address, "/metrics")).status).toBe(200);
    expect((await ask(servers.metrics.address, "/readyz")).status).toBe(404);
    expect((await ask(servers.health.address, "/metrics")).status).toBe(404);
    expect((await ask(servers.health.address, "/healthz")).status).toBe(200);
    expect((await ask(servers.health.address, "/readyz")).status).toBe(200);
    await servers.close();
  });

  test("one server if both addresses are equal", async () => {
    const free = await start({ live: {} });
    const address = free.address ?? "";
    await free.close();
    const { registry } = createMetrics();
    const servers = await startObserveServers({
      metricsBindAddress: address,
      healthProbeBindAddress: address,
      registry,
    });
    for (const path of ["/metrics", "/healthz", "/readyz"]) expect((await ask(address, path)).status).toBe(200);
    await servers.close();
  });

  test("no server is left running when the second cannot start", async () => {
    await using taken = await start({ live: {} });
    const free = await start({ live: {} });
    const address = free.address ?? "";
    await free.close();
    const both = startObserveServers({
      metricsBindAddress: address,
      healthProbeBindAddress: taken.address ?? "",
      registry: createMetrics().registry,
    });
    await expect(both).rejects.toThrow(ConfigError);
    await expect(ask(address, "/metrics")).rejects.toThrow(/ECONNREFUSED/);
  });
});
