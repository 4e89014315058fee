import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AttachStream } from "../../src/kube/attach.ts";
import { type CallOptions, KubeClient } from "../../src/kube/client.ts";
import type { ClusterAccess } from "../../src/kube/config.ts";
import { KubeApiError, LeadershipLostError } from "../../src/kube/errors.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { selfSigned } from "../../testbed/cluster/certificate.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeApiServer, send, sendStatus } from "./api-server.ts";
import { ServerWebSocket } from "./server-web-socket.ts";
import { settled, until } from "./until.ts";

const STDOUT = 1;
const ERROR = 3;
const MARKER = "berth1 started";
const POD = { namespace: "agents", name: "a" };
const NEVER = new AbortController().signal;

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
const metrics = createMetrics();

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = clientOf(server.access);
});

afterEach(async () => {
  await client.close();
  await server[Symbol.asyncDispose]();
});

/** Its streams send their first ping after 10 seconds. */
function clientOf(access: ClusterAccess): KubeClient {
  return new KubeClient({ access, clock, metrics, random: () => 0.5 });
}

async function attached(o?: CallOptions, from = client): Promise<{ stream: AttachStream; remote: ServerWebSocket }> {
  const stream = await from.attach(POD, { container: "main" }, o);
  const remote = server.attached.at(-1);
  if (!remote) throw new Error("the server accepted no attach request");
  return { stream, remote };
}

/** The error of an attach request; steps the clock for its retries. */
async function refused(o?: CallOptions): Promise<KubeApiError> {
  const error = await settled(clock, client.attach(POD, { container: "main" }, o)).catch((reason: unknown) => reason);
  if (error instanceof KubeApiError) return error;
  throw new Error(`expected a KubeApiError, got ${String(error)}`);
}

describe("opening", () => {
  test("names the container, its streams and the protocol, and sends the credentials", async () => {
    await attached();
    const [seen] = server.requests;
    expect(seen?.path).toBe("/api/v1/namespaces/agents/pods/a/attach");
    expect(Object.fromEntries(seen?.query ?? [])).toEqual({
      container: "main",
      stdin: "true",
      stdout: "true",
      stderr: "false",
      tty: "false",
    });
    expect(seen?.headers).toMatchObject({
      authorization: "Bearer test-token",
      "user-agent": "berth",
      accept: "*/*",
      "sec-websocket-protocol": "v4.channel.k8s.io",
    });
    expect(seen?.headers).not.toHaveProperty("sec-websocket-extensions");
    expect(await metricValue(metrics.kubeRequests, { verb: "get", resource: "pods/attach", code: "101" })).toBe(1);
  });

  test("works over TLS and through a proxy", async () => {
    const tunnels: string[] = [];
    const proxy = createServer().on("connect", (request, socket: Socket) => {
      tunnels.push(request.url ?? "");
      const target = connect(secure.port, "127.0.0.1", () => socket.write("HTTP/1.1 200 OK\r\n\r\n"));
      target
        .on("error", () => {})
        .pipe(socket.on("error", () => {}))
        .pipe(target);
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    const pair = selfSigned(["127.0.0.1"]);
    await using secure = await FakeApiServer.start({ key: pair.key, cert: pair.certificate });
    const proxyUrl = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    for (const access of [secure.access, { ...secure.access, proxyUrl }]) {
      const other = clientOf(access);
      const stream = await other.attach(POD, { container: "main" });
      stream.send("hello");
      await secure.until(() => secure.attached.at(-1)?.stdin[0] === "hello");
      await other.close();
      expect(await stream.closed).toContain("was lost");
    }
    expect(tunnels).toEqual([`127.0.0.1:${secure.port}`]);
    await new Promise((resolve) => proxy.close(resolve));
  });

  test.each([
    [403, "Forbidden", 'pods "a" is forbidden: cannot create resource "pods/attach"'],
    [404, "NotFound", 'pods "a" not found'],
    [400, "BadRequest", "container main is not valid for pod a"],
    [500, "InternalError", "error dialing backend: dial tcp 10.0.0.1:10250: connect: connection refused"],
  ])("a refusal with %i gives its reason", async (status, reason, message) => {
    server.scripts.push((_seen, response) => {
      sendStatus(response, status, reason, message);
      return true;
    });
    const error = await refused();
    expect(error).toMatchObject({ status, reason, maybeApplied: false });
    expect(error.message).toBe(`get pods/attach agents/a: ${message}`);
    expect(server.requests).toHaveLength(1);
  });

  test("an answer without an upgrade is an error", async () => {
    server.scripts.push((_seen, response) => {
      send(response, 200, {});
      return true;
    });
    const error = await refused();
    expect(error).toMatchObject({ status: 0, reason: "MalformedAnswer" });
    expect(error.message).toContain("HTTP 200");
  });

  test.each([
    ["without the protocol", { protocol: null }],
    ["of another protocol", { protocol: "v5.channel.k8s.io" }],
    ["with a wrong hash", { accept: "bm90aGluZw==" }],
  ])("an upgrade %s is an error, and its connection is closed", async (_, handshake) => {
    server.handshake = handshake;
    expect(await refused()).toMatchObject({ status: 0, reason: "MalformedAnswer" });
    await server.until(() => server.attached.every((remote) => !remote.isOpen));
  });

  test("a 401 makes a plug-in return fresh credentials, once", async () => {
    const plugin = async (fresh: boolean) => ({ authorization: fresh ? "Bearer new" : "Bearer old" });
    await client.close();
    client = clientOf({ ...server.access, auth: { plugin } });
    let valid = "Bearer new";
    server.scripts.push((seen, response) => {
      if (seen.headers.authorization === valid) return false;
      sendStatus(response, 401, "Unauthorized", "Unauthorized");
      return true;
    });
    const { stream } = await attached();
    expect(stream.isOpen).toBe(true);
    valid = "none";
    expect((await refused()).status).toBe(401);
    expect(server.requests).toHaveLength(4);
  });

  test("ends after its timeout, which is 10 s by default", async () => {
    server.scripts.push(() => true);
    const start = clock.monotonic();
    expect((await refused()).message).toContain("timed out after 10000 ms");
    expect(clock.monotonic() - start).toBeGreaterThanOrEqual(10_000);
    expect((await refused({ timeoutMs: 500 })).message).toContain("timed out after 500 ms");
  });

  test("ends when its signal aborts, and a later abort leaves the stream open", async () => {
    const early = new AbortController();
    server.scripts.push(() => !early.signal.aborted);
    const opening = refused({ signal: early.signal });
    await server.until(() => server.requests.length === 1);
    early.abort(new Error("not needed"));
    expect((await opening).message).toContain("not needed");
    const late = new AbortController();
    const { stream } = await attached({ signal: late.signal });
    late.abort();
    await clock.settle();
    expect(stream.isOpen).toBe(true);
  });

  test("does not wait behind other requests, and open streams leave room for them", async () => {
    let held = true;
    const open: (() => void)[] = [];
    server.scripts.push((seen, response) => {
      if (!held || !seen.path.endsWith("/version")) return false;
      open.push(() => send(response, 200, {}));
      return true;
    });
    const reads = Array.from({ length: 64 }, () => client.raw("GET", "/version"));
    await server.until(() => open.length === 64);
    const { stream } = await attached();
    held = false;
    for (const answer of open) answer();
    await Promise.all(reads);
    for (let i = 0; i < 64; i += 1) await attached();
    await client.raw("GET", "/api/v1/pods");
    expect(stream.isOpen).toBe(true);
  });
});

describe("a fenced client", () => {
  test("opens no stream and writes nothing when the fence throws", async () => {
    let held = true;
    const lost = new LeadershipLostError("lost");
    const fenced = client.fenced(() => {
      if (!held) throw lost;
    });
    const { stream, remote } = await attached({}, fenced);
    stream.send("first");
    await server.until(() => remote.stdin.length === 1);
    held = false;
    expect(() => stream.send("second")).toThrow(lost);
    await expect(fenced.attach(POD, { container: "main" })).rejects.toBe(lost);
    held = true;
    stream.send("third");
    await server.until(() => remote.stdin.length === 2);
    expect(remote.stdin).toEqual(["first", "third"]);
    expect(server.requests).toHaveLength(1);
  });
});

describe("the output", () => {
  test("contains the channel stdout of messages in any pieces", async () => {
    const { stream, remote } = await attached();
    const found = stream.waitFor(MARKER, NEVER);
    const joined = Buffer.concat([
      ServerWebSocket.message(STDOUT, ""),
      ServerWebSocket.message(2, "stderr "),
      ServerWebSocket.message(STDOUT, "é berth1 "),
      ServerWebSocket.message(STDOUT, "started\n"),
    ]);
    for (const byte of joined) {
      remote.write(Buffer.of(byte));
      await clock.settle();
    }
    expect(await found).toBe(true);
    expect(stream.output).toBe(`é ${MARKER}\n`);
    expect(await stream.waitFor(MARKER, NEVER)).toBe(true);
    remote.write(joined);
    const twice = new RegExp(`(é ${MARKER}\n){2}`);
    await until(clock, () => twice.test(stream.output), 0);
  });

  test("keeps characters that two messages share", async () => {
    const { stream, remote } = await attached();
    const bytes = Buffer.from("漢字");
    remote.send(STDOUT, bytes.subarray(0, 2));
    remote.send(STDOUT, bytes.subarray(2));
    expect(await stream.waitFor("漢字", NEVER)).toBe(true);
  });

  test("ends at its bound, and the stream goes on", async () => {
    const { stream, remote } = await attached();
    const most = 64 * 1024;
    for (let i = 0; i < 5; i += 1) remote.send(STDOUT, "x".repeat(most / 4 + 1));
    remote.send(STDOUT, MARKER);
    remote.close(1000);
    expect(await stream.waitFor(MARKER, NEVER)).toBe(false);
    expect(stream.output).toBe("x".repeat(most));
  });
});

describe("waiting for a text", () => {
  test("does not take what was printed before the last line for its answer", async () => {
    const { stream, remote } = await attached();
    remote.send(STDOUT, `${MARKER}\n`);
    expect(await stream.waitFor(MARKER, NEVER)).toBe(true);
    stream.send("a line\n");
    const giveUp = new AbortController();
    const found = stream.waitFor(MARKER, giveUp.signal);
    giveUp.abort();
    expect(await found).toBe(false);
  });

  test("ends when its signal aborts", async () => {
    const { stream, remote } = await attached();
    const giveUp = new AbortController();
    const [short, long] = [stream.waitFor(MARKER, giveUp.signal), stream.waitFor(MARKER, NEVER)];
    giveUp.abort();
    expect(await short).toBe(false);
    expect(await stream.waitFor(MARKER, giveUp.signal)).toBe(false);
    remote.send(STDOUT, MARKER);
    expect(await long).toBe(true);
  });

  test("ends when the stream closes", async () => {
    const { stream, remote } = await attached();
    const found = stream.waitFor(MARKER, NEVER);
    remote.cut();
    expect(await found).toBe(false);
    expect(await stream.waitFor(MARKER, NEVER)).toBe(false);
  });
});

describe("an answer to a ping", () => {
  test("comes from the other end, also while the container prints", async () => {
    const { stream, remote } = await attached();
    expect(await stream.answers(NEVER)).toBe(true);
    remote.answersPings = false;
    const giveUp = new AbortController();
    const asked = stream.answers(giveUp.signal);
    remote.send(STDOUT, "output\n");
    expect(await stream.waitFor("output", NEVER)).toBe(true);
    giveUp.abort();
    expect(await asked).toBe(false);
    remote.answersPings = true;
    expect(await stream.answers(NEVER)).toBe(true);
  });

  test("does not come over a stream that closes", async () => {
    const { stream, remote } = await attached();
    remote.answersPings = false;
    const asked = stream.answers(NEVER);
    remote.cut();
    expect(await asked).toBe(false);
  });
});

describe("the end of a stream", () => {
  test.each([
    ["a close frame", (remote: ServerWebSocket) => remote.close(1001, "going away"), "code 1001 going away"],
    ["a broken connection", (remote: ServerWebSocket) => remote.cut(), "the connection was lost"],
    [
      "a failure of the kubelet",
      (remote: ServerWebSocket) => {
        remote.send(ERROR, JSON.stringify({ metadata: {}, status: "Failure", message: "no such container" }));
        remote.close(1000);
      },
      "get pods/attach agents/a: no such container",
    ],
    [
      "the end of the container",
      (remote: ServerWebSocket) => {
        remote.send(ERROR, JSON.stringify({ metadata: {}, status: "Success" }));
        remote.close(1000);
      },
      "code 1000",
    ],
    [
      "a Status that is no JSON",
      (remote: ServerWebSocket) => {
        remote.send(ERROR, "{");
        remote.close(1000);
      },
      "unreadable Status",
    ],
    ["a frame that is none", (remote: ServerWebSocket) => remote.write(Buffer.of(0xff, 0xff)), "malformed"],
  ])("is reported: %s", async (_, end, reason) => {
    const { stream, remote } = await attached();
    end(remote);
    expect(await stream.closed).toContain(reason);
    expect(stream.isOpen).toBe(false);
    expect(() => stream.send("late")).toThrow("get pods/attach agents/a: the stream is closed");
    await server.until(() => !remote.isOpen);
    expect(clock.pendingTimers).toBe(0);
  });

  test("by the client sends a close frame after what was written, and closes the connection", async () => {
    const { stream, remote } = await attached();
    stream.send("last");
    stream.close();
    stream.close();
    expect(stream.isOpen).toBe(false);
    expect(await stream.closed).toBe("closed by this client");
    await server.until(() => !remote.isOpen);
    expect(remote.stdin).toEqual(["last"]);
    expect(remote.closedByClient).toBe(true);
    expect(clock.pendingTimers).toBe(0);
  });

  test("comes with the client's end", async () => {
    const { stream, remote } = await attached();
    await client.close();
    expect(await stream.closed).toContain("was lost");
    await server.until(() => !remote.isOpen);
  });

  test("comes when a server that sent a close frame keeps the connection", async () => {
    const { stream, remote } = await attached();
    remote.close(1000, "", { stays: true });
    expect(await settled(clock, stream.closed, 1_000)).not.toBe("");
    await server.until(() => !remote.isOpen);
  });
});

describe("a connection that stops answering", () => {
  test("is pinged every 20 s, and closed 10 s after a ping without an answer", async () => {
    const { stream, remote } = await attached();
    const start = clock.monotonic();
    await until(clock, () => remote.pings === 3, 500);
    expect(clock.monotonic() - start).toBeLessThanOrEqual(51_000);
    expect(stream.isOpen).toBe(true);
    remote.answersPings = false;
    await until(clock, () => remote.pings === 4, 500);
    await clock.advance(9_000);
    expect(stream.isOpen).toBe(true);
    await clock.advance(1_000);
    expect(stream.isOpen).toBe(false);
    expect(await stream.closed).toContain("no answer to a ping within 10 s");
    await server.until(() => !remote.isOpen);
  });

  test("is kept while other data arrives", async () => {
    const { stream, remote } = await attached();
    remote.answersPings = false;
    await clock.advance(10_000);
    await server.until(() => remote.pings === 1);
    remote.send(STDOUT, "still here");
    await stream.waitFor("still here", NEVER);
    await clock.advance(10_000);
    expect(stream.isOpen).toBe(true);
  });
});

test("the log of a container is text, bounded by the server", async () => {
  server.scripts.push((seen, response) => {
    if (!seen.path.endsWith("/log")) return false;
    response.writeHead(200, { "content-type": "text/plain" });
    response.end(`${MARKER}\né`);
    return true;
  });
  expect(await client.log(POD, { container: "main", limitBytes: 100 })).toBe(`${MARKER}\né`);
  const [seen] = server.requests;
  expect(seen?.path).toBe("/api/v1/namespaces/agents/pods/a/log");
  expect(Object.fromEntries(seen?.query ?? [])).toEqual({ container: "main", limitBytes: "100" });
});
