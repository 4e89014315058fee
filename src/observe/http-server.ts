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
  /** More are closed as soon as they come. */
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
  const server = createServer({ ...times, maxHeaderSize: maxHeaderBytes }, oneAtATime(listener));
  server.maxConnections = maxConnections;
  server.timeout = unreadMs;
  return server;
}

/** No scraper, kubelet, browser or proxy sends a request before the last one is answered: who does is cut off. */
function oneAtATime(listener: RequestListener): RequestListener {
  const answering = new WeakSet<Socket>();
  return (request, response) => {
    const { socket } = request;
    // The rest of the packet in which the connection was cut off.
    if (socket.destroyed) return;
    if (answering.has(socket)) {
      socket.destroy();
      return;
    }
    answering.add(socket);
    response.once("close", () => answering.delete(socket));
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
