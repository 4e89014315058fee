import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
}

/**
 * A TCP proxy on loopback that simulates network faults: it cuts connections, silences them, or refuses new ones. It
 * does not parse TLS or HTTP.
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

  /** @param target `https://host:port` or similar */
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

  /** The number of open connections. */
  get open(): number {
    return this.#pairs.size;
  }

  /** The number of connections accepted so far, including refused ones. */
  get accepted(): number {
    return this.#accepted;
  }

  /** The URL with its server replaced by this proxy. */
  url(target: string): string {
    const url = new URL(target);
    url.hostname = "127.0.0.1";
    url.port = String(this.port);
    return url.toString().replace(/\/$/, "");
  }

  /** Resets every open connection; the mode decides about new ones. */
  cut(): void {
    for (const { client, upstream } of this.#pairs) {
      client.resetAndDestroy();
      upstream.destroy();
    }
  }

  /** Silences all open and new connections: nothing is passed on in either direction, and nothing is closed. */
  stall(): void {
    this.#mode = "stall";
    this.freezeOpen();
  }

  /** Silences the open connections, as if the other end had vanished; new ones are forwarded. */
  freezeOpen(): void {
    for (const { client, upstream } of this.#pairs) {
      client.pause();
      upstream.pause();
    }
  }

  /** Holds back what the other end sends on the open connections, as a proxy does that buffers; new ones are forwarded. */
  holdAnswers(): void {
    for (const { upstream } of this.#pairs) upstream.pause();
  }

  /** Resets every new connection; open ones continue. */
  refuse(): void {
    this.#mode = "refuse";
  }

  /** Ends all faults. */
  forward(): void {
    this.#mode = "forward";
    for (const { client, upstream } of this.#pairs) {
      client.resume();
      upstream.resume();
    }
  }

  /** Resolves when `condition` holds; checked whenever a connection opens or closes. */
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

/** Not `pipe`, which would resume a stream that was paused on purpose. */
function pass(from: Socket, to: Socket): void {
  from.on("data", (chunk) => {
    if (to.writable) to.write(chunk);
  });
  from.on("end", () => to.end());
}
