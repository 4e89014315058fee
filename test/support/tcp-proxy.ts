import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
}

/**
 * A TCP proxy on loopback that a test can make misbehave as networks do: cut connections, let them go silent, refuse new
 * ones. It knows nothing of TLS or HTTP.
 */
export class TcpProxy {
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #pairs = new Set<Pair>();
  #accepted = 0;
  #mode: "forward" | "stall" | "refuse" = "forward";
  #waiters: (() => void)[] = [];

  private constructor(target: { host: string; port: number }) {
    this.#target = target;
    this.#server = createServer((client) => this.#accept(client));
  }

  /** @param target `https://host:port`, or the like. */
  static async start(target: string): Promise<TcpProxy> {
    const url = new URL(target);
    const port = Number(url.port) || (url.protocol === "https:" ? 443 : 80);
    const proxy = new TcpProxy({ host: url.hostname, port });
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that are open. */
  get open(): number {
    return this.#pairs.size;
  }

  /** Connections taken so far, refused ones too. */
  get accepted(): number {
    return this.#accepted;
  }

  /** The given URL with this proxy in the place of its server. */
  url(target: string): string {
    const url = new URL(target);
    url.hostname = "127.0.0.1";
    url.port = String(this.port);
    return url.toString().replace(/\/$/, "");
  }

  /** Resets every connection; new ones go as the mode says. */
  cut(): void {
    for (const { client, upstream } of this.#pairs) {
      client.resetAndDestroy();
      upstream.destroy();
    }
  }

  /** Lets every connection, old and new, go silent: nothing is passed on in either direction, and nothing closed. */
  stall(): void {
    this.#mode = "stall";
    this.freezeOpen();
  }

  /** Lets the connections that are open now go silent, as when the other end vanished; new ones are forwarded. */
  freezeOpen(): void {
    for (const { client, upstream } of this.#pairs) {
      client.pause();
      upstream.pause();
    }
  }

  /** Resets every new connection; open ones go on. */
  refuse(): void {
    this.#mode = "refuse";
  }

  /** Back to a good network. */
  forward(): void {
    this.#mode = "forward";
    for (const { client, upstream } of this.#pairs) {
      client.resume();
      upstream.resume();
    }
  }

  /** Resolves when `condition` holds; it is looked at whenever a connection comes or goes. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(client: Socket): void {
    this.#accepted += 1;
    client.on("error", () => {});
    if (this.#mode === "refuse") {
      client.resetAndDestroy();
      this.#wake();
      return;
    }
    const upstream = connect(this.#target);
    const pair: Pair = { client, upstream };
    this.#pairs.add(pair);
    upstream.on("error", () => client.resetAndDestroy());
    pass(client, upstream);
    pass(upstream, client);
    client.on("close", () => {
      upstream.destroy();
      this.#pairs.delete(pair);
      this.#wake();
    });
    upstream.on("close", () => client.destroySoon());
    if (this.#mode === "stall") {
      client.pause();
      upstream.pause();
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}

/** Without `pipe`, which would resume a stream that was paused on purpose. */
function pass(from: Socket, to: Socket): void {
  from.on("data", (chunk) => {
    if (to.writable) to.write(chunk);
  });
  from.on("end", () => to.end());
}
