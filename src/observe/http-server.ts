import type { Server, ServerOptions } from "node:http";
import { ConfigError, errorText } from "../core/errors.ts";
import { type BindAddress, parseBindAddress } from "./bind-address.ts";

/** Whoever asks here has everything to send at hand, and sends it at once; a peer that takes longer only holds a socket. */
const REQUEST_TIMEOUT_MS = 5_000;
/** How often node looks for connections past those time-outs. Its default of 30 s would make 5 s a wish. */
const TIMEOUT_CHECK_MS = 1_000;

/** Options of a server that nobody can keep waiting. @param maxHeaderSize bytes */
export function requestBounds(maxHeaderSize: number): ServerOptions {
  return {
    maxHeaderSize,
    headersTimeout: REQUEST_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: TIMEOUT_CHECK_MS,
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
