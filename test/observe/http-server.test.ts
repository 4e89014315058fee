import { once } from "node:events";
import { Agent, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { boundedServer, type ServerBounds } from "../../src/observe/http-server.ts";
import { sendPipelined } from "../support/pipelined.ts";

const GET = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

interface Bench extends AsyncDisposable {
  readonly server: Server;
  readonly port: number;
  readonly address: string;
  /** Requests that were handed out. */
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
  ])("with a second request before the first is answered, which it is %s, is cut off", async (_, answer) => {
    await using bench = await start(answer);
    await sendPipelined(
      bench.address,
      Array.from({ length: 400 }, () => GET),
    );
    expect(bench.seen).toHaveLength(1);
  });

  test("is kept for one request after the other", async () => {
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

  test("whose peer takes nothing of its answer is ended", async () => {
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

  test("beyond the bound is closed at once, and those before it go on", async () => {
    await using bench = await start((response) => response.end("x"), { maxConnections: 1 });
    const first = connect(bench.port);
    await nextSocket(bench.server);
    const second = connect(bench.port);
    second.on("error", () => {});
    const closed = new Promise((resolve) => second.once("close", resolve));
    second.resume();
    await closed;
    first.write(GET);
    expect(String(await once(first, "data"))).toMatch(/^HTTP\/1\.1 200 /);
    first.destroy();
  });
});
