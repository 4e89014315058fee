/** A scripted HTTP server for tests of clients, and common answers. */

import { once } from "node:events";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";

/** One complete request as the server read it. */
export interface Seen {
  readonly method: string;
  /** Path and query as they were sent. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** How the server answers one request. */
export type Act = (response: ServerResponse, seen: Seen, socket: Socket) => void;

/** Answers with JSON. */
export function json(status: number, value: unknown, headers: Record<string, string> = {}): Act {
  return (response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(value));
  };
}

/** Answers with these bytes. */
export function raw(status: number, body: string | Buffer, headers: Record<string, string> = {}): Act {
  return (response) => {
    response.writeHead(status, headers);
    response.end(body);
  };
}

/** Never answers. */
export const silence: Act = () => {};

/**
 * A real HTTP server on a loopback port. It answers requests with the queued acts, in order. It answers an unexpected
 * request with 599 and records it, so that a test detects it.
 */
export class StrictServer implements AsyncDisposable {
  readonly seen: Seen[] = [];
  readonly sockets = new Set<Socket>();
  connections = 0;
  unexpected = 0;
  readonly #server: Server;
  readonly #acts: Act[] = [];
  readonly #waiters: { count: number; resolve: () => void }[] = [];
  /** Used when no act is queued. */
  fallback: Act | undefined;

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => {
      this.connections += 1;
      this.sockets.add(socket);
      socket.on("close", () => this.sockets.delete(socket));
      socket.on("error", () => {});
    });
    server.on("request", (request, response) => void this.#onRequest(request, response));
  }

  static async start(server: Server = createServer()): Promise<StrictServer> {
    const strict = new StrictServer(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return strict;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get origin(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Queues the answers to the next requests. */
  next(...acts: Act[]): this {
    this.#acts.push(...acts);
    return this;
  }

  /** The last request. */
  get last(): Seen {
    const last = this.seen.at(-1);
    if (!last) throw new Error("no request was seen");
    return last;
  }

  /** Resolves when this number of requests has been read completely. */
  async sawRequests(count: number): Promise<void> {
    if (this.seen.length >= count) return;
    await new Promise<void>((resolve) => this.#waiters.push({ count, resolve }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }

  async #onRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { method = "", url = "", headers } = request;
    const seen = { method, url, headers, body: Buffer.concat(chunks).toString() };
    this.seen.push(seen);
    const act = this.#acts.shift() ?? this.fallback;
    if (act) act(response, seen, request.socket);
    else {
      this.unexpected += 1;
      response.writeHead(599).end();
    }
    for (const waiter of this.#waiters.splice(0)) {
      if (this.seen.length >= waiter.count) waiter.resolve();
      else this.#waiters.push(waiter);
    }
  }
}
