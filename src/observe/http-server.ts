import { createServer, type RequestListener, type Server } from "node:http";
import type { Socket } from "node:net";
import { ConfigError, errorText } from "../core/errors.ts";
import { type BindAddress, parseBindAddress } from "./bind-address.ts";

/** Clients send their whole request at once. A slower peer only occupies a socket. */
const REQUEST_TIMEOUT_MS = 5_000;
/**
 * How often Node checks for connections past those timeouts. Its default of 30 s would make a limit of 5 s ineffective.
 */
const TIMEOUT_CHECK_MS = 1_000;

/** A peer that reads nothing of an answer for this long is gone. Longer than the interval of the console's events. */
export const UNREAD_MS = 30_000;

export interface ServerBounds {
  readonly maxHeaderBytes: number;
  /** A further connection replaces one without a running request. If all have one, the new connection is closed. */
  readonly maxConnections: number;
  /** How long a connection may stay open between two requests; Node's default is 5 s. */
  readonly keepAliveMs?: number;
  /** For tests; the default is UNREAD_MS. */
  readonly unreadMs?: number;
}

/**
 * Creates a server with a bounded cost per peer: one request at a time on each connection. Node would pass on all
 * requests of one packet at once and buffer their answers: 14 kB of requests led to 400 renderings of the metrics.
 */
export function boundedServer(bounds: ServerBounds, listener: RequestListener): Server {
  const { maxHeaderBytes, maxConnections, keepAliveMs, unreadMs = UNREAD_MS } = bounds;
  const times = {
    headersTimeout: REQUEST_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: TIMEOUT_CHECK_MS,
    ...(keepAliveMs !== undefined && { keepAliveTimeout: keepAliveMs }),
  };
  const connections = new Connections(maxConnections);
  const server = createServer({ ...times, maxHeaderSize: maxHeaderBytes }, oneAtATime(listener, connections));
  server.on("connection", (socket) => connections.add(socket));
  server.timeout = unreadMs;
  return server;
}

/**
 * Replaces `server.maxConnections`, which closes the newest connection: silent peers would block the kubelet's probes,
 * and the kubelet would restart this process.
 */
class Connections {
  readonly #max: number;
  /** Connections without a running request, the longest waiting first. */
  readonly #waiting = new Set<Socket>();
  readonly #answering = new Set<Socket>();

  constructor(max: number) {
    this.#max = max;
  }

  add(socket: Socket): void {
    if (this.#waiting.size + this.#answering.size >= this.#max) {
      const [longest = socket] = this.#waiting;
      this.#waiting.delete(longest);
      longest.destroy();
    }
    if (socket.destroyed) return;
    this.#waiting.add(socket);
    socket.once("close", () => {
      this.#waiting.delete(socket);
      this.#answering.delete(socket);
    });
  }

  /** @returns false when a request is already running on the connection. */
  begin(socket: Socket): boolean {
    if (this.#answering.has(socket)) return false;
    this.#waiting.delete(socket);
    this.#answering.add(socket);
    return true;
  }

  end(socket: Socket): void {
    this.#answering.delete(socket);
    if (!socket.destroyed) this.#waiting.add(socket);
  }
}

/** Scrapers, the kubelet, browsers and proxies never send a request before the last answer. Disconnects other peers. */
function oneAtATime(listener: RequestListener, connections: Connections): RequestListener {
  return (request, response) => {
    const { socket } = request;
    // Another request from the packet that led to the disconnect.
    if (socket.destroyed) return;
    if (!connections.begin(socket)) {
      socket.destroy();
      return;
    }
    response.once("close", () => connections.end(socket));
    listener(request, response);
  };
}

/** Returns undefined when the server is disabled. @throws ConfigError */
export function readBindAddress(text: string): BindAddress | undefined {
  try {
    return parseBindAddress(text);
  } catch (error) {
    throw new ConfigError(errorText(error), { cause: error });
  }
}

/**
 * Resolves when the server listens. `text` is the address as the user wrote it. @throws ConfigError when it cannot
 * listen.
 */
export function listen(server: Server, bind: BindAddress, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (cause: Error) =>
      reject(new ConfigError(`cannot listen on ${text}: ${cause.message}; choose another address, or 0`, { cause }));
    server.once("error", onError);
    server.listen(bind, () => {
      server.off("error", onError);
      resolve();
    });
  });
}

/** Returns a function that stops listening and closes open connections. Idempotent. */
export function closerOf(server: Server): () => Promise<void> {
  let done: Promise<void> | undefined;
  return () => {
    done ??= new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
    return done;
  };
}

/** `host:port` with the actual port; undefined when the server does not listen. */
export function addressText(server: Server): string | undefined {
  const address = server.address();
  if (address === null || typeof address === "string") return undefined;
  return address.family === "IPv6" ? `[${address.address}]:${address.port}` : `${address.address}:${address.port}`;
}
