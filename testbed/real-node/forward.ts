import { connect, createServer, type NetConnectOpts, type Server, type Socket } from "node:net";

/** The source or target of a forwarder: a TCP address or a unix socket (which network namespaces don't separate). */
export type Endpoint = { readonly host: string; readonly port: number } | { readonly path: string };

/** Forwards connections unchanged until it's closed. */
export class Forwarder implements AsyncDisposable {
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @param to called for each connection. Rejects if it can't listen on `from` */
  static async start(from: Endpoint, to: () => Endpoint): Promise<Forwarder> {
    // Without noDelay, the second of two small packets waits up to 40 ms for the first one's acknowledgement.
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    const forwarder = new Forwarder(server);
    server.on("connection", (socket) => forwarder.#pass(socket, to()));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(from, resolve);
    });
    return forwarder;
  }

  /** The TCP port that it listens on. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address ? address.port : 0;
  }

  async close(): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #pass(near: Socket, to: Endpoint): void {
    const far = connect({ ...to, allowHalfOpen: true, noDelay: true } as NetConnectOpts);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#open.add(one);
      // When one end closes for any reason, close the other end too, so that neither hangs.
      one.on("error", () => other.destroy());
      one.on("close", () => {
        this.#open.delete(one);
        other.destroySoon();
      });
      one.pipe(other);
    }
  }
}
