import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

/**
 * The first port to choose. The range is below the one that the kernel uses for outgoing connections and for listeners
 * without a fixed port (Linux: 32768 and above). A busy machine takes many of those per second, possibly the one that
 * was just found free.
 */
const FIRST_PORT = 20_000;
const PORTS = 10_000;
/** If this many ports in a row are taken, no port is free. */
const CHOICES = 100;

/**
 * Returns a TCP port that is free now, on loopback or on another address. Another process may take it before the caller
 * binds it, so the caller must be able to ask again (see `retryOnTakenPort`).
 * @param host if empty, the port is free on every address of the machine
 */
export async function freePort(host = "127.0.0.1"): Promise<number> {
  for (let choice = 0; choice < CHOICES; choice += 1) {
    const port = FIRST_PORT + randomInt(PORTS);
    if (await isFree(port, host)) return port;
  }
  throw new Error("no port is free");
}

async function isFree(port: number, host: string): Promise<boolean> {
  const server = createServer();
  try {
    server.listen({ port, ...(host !== "" && { host }) });
    await once(server, "listening");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") return false;
    throw error;
  }
  server.close();
  await once(server, "close");
  return true;
}

/** A program could not bind its port. */
export class PortTakenError extends Error {
  override readonly name = "PortTakenError";
}

/** How often to choose another port. Losing the race even once is rare. */
const PORT_ATTEMPTS = 5;

/** Runs `fn` with a free port, and again with another port if it throws PortTakenError. */
export async function retryOnTakenPort<T>(
  fn: (port: number) => Promise<T>,
  choose: () => Promise<number> = freePort,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await fn(await choose());
    } catch (error) {
      if (!(error instanceof PortTakenError) || attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

/** Whether a log says that a port was taken. This is the text of Go's net package for EADDRINUSE. */
export function saysPortTaken(log: string): boolean {
  return log.includes("address already in use");
}
