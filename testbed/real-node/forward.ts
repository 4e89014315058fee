import { connect, createServer, type NetConnectOpts, type Server, type Socket } from "node:net";

/** Where a forwarder listens, or leads to: a TCP address or a unix socket (which network namespaces don't divide). */
export type Endpoint = { readonly host: string; readonly port: number } | { readonly path: string };

/** Passes connections on, as they are, until it is closed. */
export class Forwarder implements AsyncDisposable {
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @param to asked for each connection. Rejects when `from` cannot be listened on. */
  static async start(from: Endpoint, to: () => Endpoint): Promise<Forwarder> {
    const server = createServer({ allowHalfOpen: true });
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
    const far = connect({ ...to, allowHalfOpen: true } as NetConnectOpts);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#open.add(one);
      // An end that goes, however it goes, takes the other along: neither is left hanging.
      one.on("error", () => other.destroy());
      one.on("close", () => {
        this.#open.delete(one);
        other.destroySoon();
      });
      one.pipe(other);
    }
  }
}
