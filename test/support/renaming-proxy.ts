import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { request } from "undici";

/** Headers of a single connection, or of a body that this proxy changes. */
const OWN_HEADERS = new Set(["connection", "content-length", "host", "keep-alive", "transfer-encoding"]);

/**
 * A proxy in front of the work simulator that renames ids: clients see only the new ones, the simulator only its own.
 * The Work API's ids are opaque, so any text may be one.
 */
export class RenamingProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: string;
  readonly #names = new Map<string, string>();

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer((from, to) => {
      this.#pass(from, to).catch(() => to.destroy());
    });
  }

  /** @param target `http://host:port` */
  static async start(target: string): Promise<RenamingProxy> {
    const proxy = new RenamingProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** From now on, clients know `id` as `name`. */
  rename(id: string, name: string): void {
    this.#names.set(id, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #pass(from: IncomingMessage, to: ServerResponse): Promise<void> {
    let path = from.url ?? "/";
    for (const [id, name] of this.#names) path = path.replaceAll(encodeURIComponent(name), id);
    const body: Buffer[] = [];
    for await (const chunk of from) body.push(chunk as Buffer);
    const headers = Object.entries(from.headers).filter(([name]) => !OWN_HEADERS.has(name)) as [string, string][];
    const answer = await request(`${this.#target}${path}`, {
      method: from.method === "POST" ? "POST" : "GET",
      headers: Object.fromEntries(headers),
      ...(body.length === 0 ? {} : { body: Buffer.concat(body) }),
    });
    let text = await answer.body.text();
    for (const [id, name] of this.#names) text = text.replaceAll(`"${id}"`, JSON.stringify(name));
    const kept = Object.entries(answer.headers).filter(([name]) => !OWN_HEADERS.has(name));
    to.writeHead(answer.statusCode, Object.fromEntries(kept));
    to.end(text);
  }
}
