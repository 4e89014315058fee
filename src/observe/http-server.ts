import { createServer, type RequestListener, type Server } from "node:http";
import type { Socket } from "node:net";
import { ConfigError, errorText } from "../core/errors.ts";
import { type BindAddress, parseBindAddress } from "./bind-address.ts";

/** Whoever asks here has everything to send at hand, and sends it at once; a peer that takes longer only holds a socket. */
const REQUEST_TIMEOUT_MS = 5_000;
/** How often node looks for connections past those time-outs. Its default of 30 s would make 5 s a wish. */
const TIMEOUT_CHECK_MS = 1_000;

/** Who takes nothing of an answer for so long is gone. Longer than events of the console are apart. */
export const UNREAD_MS = 30_000;

export interface ServerBounds {
  readonly maxHeaderBytes: number;
  /** One more takes the place of one without a request under way; where each has one, it is closed. */
  readonly maxConnections: number;
  /** How long a connection may stay between two requests; node's default is 5 s. */
  readonly keepAliveMs?: number;
  /** For tests; UNREAD_MS is the default. */
  readonly unreadMs?: number;
}

/**
 * A server whose peers cost a bounded amount, whatever they send: one request a connection at a time. Node hands out all
 * requests that came in one packet at once, and keeps their answers: 14 kB of requests became 400 renderings of the metrics.
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
 * Not `server.maxConnections`, which closes whoever comes last: peers that say nothing would keep out kubelet's probes, and
 * have it restart this process.
 */
class Connections {
  readonly #max: number;
  /** Those without a request under way, the one that has gone without for longest first. */
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

  /** @returns false when it has a request under way already. */
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

/** No scraper, kubelet, browser or proxy sends a request before the last one is answered: who does is cut off. */
function oneAtATime(listener: RequestListener, connections: Connections): RequestListener {
  return (request, response) => {
    const { socket } = request;
    // The rest of the packet in which the connection was cut off.
    if (socket.destroyed) return;
    if (!connections.begin(socket)) {
      socket.destroy();
      return;
    }
    response.once("close", () => connections.end(socket));
    listener(request, response);
  };
}

/** Undefined: nothing is to listen. @throws ConfigError */
export function readBindAddress(text: string): BindAddress | undefined {
  try {
    return parseBindAddress(text);
  } catch (error) {
    throw new ConfigError(errorText(error), { cause: error });
  }
}

/** Resolves when the server listens. `text` is the address as it was written. @throws ConfigError when it cannot. */
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

/** Stops listening and ends open connections. Idempotent. */
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

/** `host:port` with the port that was really opened; undefined when it does not listen. */
export function addressText(server: Server): string | undefined {
  const address = server.address();
  if (address === null || typeof address === "string") return undefined;
  return address.family === "IPv6" ? `[${address.address}]:${address.port}` : `${address.address}:${address.port}`;
}
