import { once } from "node:events";
import { Agent, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { boundedServer, type ServerBounds } from "../../src/observe/http-server.ts";
import { sendPipelined } from "../support/pipelined-requests.ts";

const GET = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

interface Bench extends AsyncDisposable {
  readonly server: Server;
  readonly port: number;
  readonly address: string;
  /** Requests that reached the listener. */
  readonly seen: ServerResponse[];
}

async function start(answer: (response: ServerResponse) => void, bounds: Partial<ServerBounds> = {}): Promise<Bench> {
  const seen: ServerResponse[] = [];
  const server = boundedServer({ maxHeaderBytes: 4_096, maxConnections: 8, ...bounds }, (_, response) => {
    seen.push(response);
    answer(response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    server.closeAllConnections();
    server.close();
  };
  return { server, port, address: `127.0.0.1:${port}`, seen, [Symbol.asyncDispose]: close };
}

/** The server's side of the next connection. */
async function nextSocket(server: Server): Promise<Socket> {
  const [socket]: Socket[] = await once(server, "connection");
  if (!socket) throw new Error("no socket");
  return socket;
}

describe("a connection", () => {
  test.each<[string, (response: ServerResponse) => void]>([
    ["at once", (response) => response.end("x")],
    ["later", (response) => setImmediate(() => response.end("x"))],
    ["never", () => {}],
  ])("is closed after a second request before the first answer, which comes %s", async (_, answer) => {
    await using bench = await start(answer);
    await sendPipelined(
      bench.address,
      Array.from({ length: 400 }, () => GET),
    );
    expect(bench.seen).toHaveLength(1);
  });

  test("is kept for sequential requests", async () => {
    await using bench = await start((response) => response.end("x".repeat(1_000_000)));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    for (let count = 0; count < 20; count += 1) {
      const asked = request({ port: bench.port, agent });
      asked.end();
      const [response]: IncomingMessage[] = await once(asked, "response");
      ports.add(asked.socket?.localPort);
      response?.resume();
      await once(asked, "close");
    }
    agent.destroy();
    expect([bench.seen.length, ports.size]).toEqual([20, 1]);
  });

  test("is closed when its peer reads nothing of an answer", async () => {
    await using bench = await start((response) => response.end(Buffer.alloc(64 * 1_024 * 1_024)), { unreadMs: 50 });
    const accepted = nextSocket(bench.server);
    const peer = connect(bench.port);
    peer.on("error", () => {});
    peer.pause();
    peer.write(GET);
    const socket = await accepted;
    await once(socket, "close");
    expect(bench.seen.map(({ writableFinished }) => writableFinished)).toEqual([false]);
    peer.destroy();
  });

  test("beyond the limit replaces the one that has been without a request for longest", async () => {
    const answer = (response: ServerResponse) =>
      response.req.url === "/stream" ? response.write("x") : response.end("x");
    await using bench = await start(answer, { maxConnections: 4 });
    const ended: string[] = [];
    const open = async (name: string, text: string) => {
      const accepted = nextSocket(bench.server);
      const peer = connect(bench.port);
      peer.on("error", () => {});
      const closed = new Promise<void>((resolve) => peer.once("close", () => resolve())).then(() => ended.push(name));
      await accepted;
      peer.write(text);
      return { peer, closed };
    };
    const answered = async (name: string, text = GET) => {
      const opened = await open(name, text);
      expect(String(await once(opened.peer, "data"))).toMatch(/^HTTP\/1\.1 200 /);
      return opened;
    };
    const kept = await answered("kept");
    const stream = await answered("stream", GET.replace("/", "/stream"));
    const silent = await open("silent", "");
    silent.peer.resume();
    const header = await open("header", "GET / HTTP/1.1\r\n");
    header.peer.resume();
    kept.peer.write(GET);
    await once(kept.peer, "data");
    for (const { closed } of [silent, header, kept]) {
      await answered("newcomer");
      await closed;
    }
    expect(ended).toEqual(["silent", "header", "kept"]);
    bench.seen.find(({ req }) => req.url === "/stream")?.end("y");
    expect(String(await once(stream.peer, "data"))).toContain("y");
  });

  test("beyond the limit is closed when all others have a running request, and those continue", async () => {
    await using bench = await start((response) => response.write("x"), { maxConnections: 2 });
    const before = [connect(bench.port), connect(bench.port)];
    for (const peer of before) {
      peer.write(GET);
      await once(peer, "data");
    }
    const late = connect(bench.port);
    late.on("error", () => {});
    const closed = new Promise((resolve) => late.once("close", resolve));
    late.on("data", () => expect.unreachable());
    late.write(GET);
    await closed;
    expect(bench.seen).toHaveLength(2);
    for (const [index, peer] of before.entries()) {
      bench.seen[index]?.end("y");
      expect(String(await once(peer, "data"))).toContain("y");
    }
  });
});
