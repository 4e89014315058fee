import { createServer } from "node:net";

/**
 * A TCP port on loopback that is free now. Somebody may take it before it is used: whoever binds it must be ready to
 * ask again (see `retryOnTakenPort`).
 */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => {
        if (address && typeof address === "object") resolve(address.port);
        else reject(new Error("no port"));
      });
    });
  });
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
