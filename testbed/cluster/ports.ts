import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

/**
 * From here on, below what a kernel lends to outgoing connections and to listeners that name no port (Linux: 32768 and
 * above): of those a busy machine takes many a second, and one may be the port that was just found free.
 */
const FIRST_PORT = 20_000;
const PORTS = 10_000;
/** Where so many are taken in a row there is none. */
const CHOICES = 100;

/**
 * A TCP port on loopback, or on another address, that is free now. Somebody may take it before it is used: whoever binds it
 * must be ready to ask again (see `retryOnTakenPort`).
 * @param host every address of the machine where it is empty
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

/** Times that a port is chosen anew; losing the race even once is rare. */
const PORT_ATTEMPTS = 5;

/** Runs `fn` with a free port, and again with another one when it throws PortTakenError. */
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

/** Whether a log tells that a port was taken (the words of Go's net package for EADDRINUSE). */
export function saysPortTaken(log: string): boolean {
  return log.includes("address already in use");
}
