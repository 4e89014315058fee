import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Agent, type Dispatcher } from "undici";
import type { Act } from "../../work/strict-server.ts";

/** A request that passes the proxy. */
export interface Passing {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly body: Buffer;
}

/** The answer of the target server. */
export interface Answered {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** What the proxy does to one request: whether the request takes effect, and what its sender receives. */
export interface Strike {
  /** Whether the target server receives the request. */
  readonly forward: boolean;
  /** @param good the target server's answer; null if it received nothing, or if its answer is a stream */
  readonly answer: (good: Answered | null) => Act;
}

/** Headers that belong to one connection, or to a body that this proxy changes. */
const OWN_HEADERS = new Set(["connection", "content-length", "host", "keep-alive", "transfer-encoding"]);

/** An HTTP proxy that forwards all requests unchanged, except those that a test strikes. */
export class MutatingProxy implements AsyncDisposable {
  /** Called for each request; undefined lets it pass. */
  strike: (passing: Passing) => Strike | undefined = () => undefined;
  /** Called for each request that passed unchanged. */
  onPassed: (passing: Passing, answered: Answered) => void = () => {};
  /** Request counts by second since the start. */
  readonly #arrivals = new Map<number, number>();
  readonly #server: Server;
  readonly #target: string;
  readonly #upstream: Dispatcher;
  readonly #startedMs = performance.now();

  private constructor(target: string, ca: string | undefined) {
    this.#target = target;
    this.#upstream = new Agent({ connect: ca === undefined ? {} : { ca }, headersTimeout: 0, bodyTimeout: 0 });
    this.#server = createServer((from, to) => {
      this.#pass(from, to).catch(() => to.destroy());
    });
    this.#server.on("connection", (socket) => socket.on("error", () => {}));
  }

  /** @param ca PEM of the CA that signed the target's certificate, for https */
  static async start(target: string, ca?: string): Promise<MutatingProxy> {
    const proxy = new MutatingProxy(target, ca);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The most requests that arrived within one second. */
  get busiestSecond(): number {
    return Math.max(0, ...this.#arrivals.values());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
    await this.#upstream.destroy();
  }

  async #pass(from: IncomingMessage, to: ServerResponse): Promise<void> {
    const second = Math.floor((performance.now() - this.#startedMs) / 1_000);
    this.#arrivals.set(second, (this.#arrivals.get(second) ?? 0) + 1);
    const pieces: Buffer[] = [];
    for await (const piece of from) pieces.push(piece as Buffer);
    const passing = { method: from.method ?? "", url: from.url ?? "/", body: Buffer.concat(pieces) };
    const struck = this.strike(passing);
    const isStream = passing.url.includes("watch=true");
    let good: Answered | null = null;
    if (!struck || (struck.forward && !isStream)) {
      const answer = await this.#forward(from, passing);
      const kept = Object.fromEntries(Object.entries(answer.headers).filter(([name]) => !OWN_HEADERS.has(name)));
      if (isStream) {
        to.writeHead(answer.statusCode, kept);
        to.flushHeaders();
        to.on("close", () => answer.body.destroy());
        answer.body.on("error", () => to.destroy());
        answer.body.pipe(to);
        return;
      }
      good = { status: answer.statusCode, headers: kept, body: Buffer.from(await answer.body.arrayBuffer()) };
    }
    if (struck) {
      const { method, url, body } = passing;
      struck.answer(good)(to, { method, url, headers: from.headers, body: body.toString() }, from.socket);
    } else if (good) {
      this.onPassed(passing, good);
      to.writeHead(good.status, { ...good.headers }).end(good.body);
    }
  }

  #forward(from: IncomingMessage, { method, url, body }: Passing): Promise<Dispatcher.ResponseData> {
    const headers = Object.entries(from.headers).filter(([name]) => !OWN_HEADERS.has(name)) as [string, string][];
    const { origin, pathname } = new URL(this.#target);
    return this.#upstream.request({
      origin,
      path: pathname.replace(/\/$/, "") + url,
      method: method as Dispatcher.HttpMethod,
      headers: Object.fromEntries(headers),
      ...(body.length === 0 ? {} : { body }),
    });
  }
}
