import { createServer, request as forward, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** A request as it arrived. */
export interface Arrival {
  readonly method: string;
  /** Last segment of the path: poll, ack, heartbeat, stop, stats; of a list, `work`. */
  readonly call: string;
  /** Who sent it. */
  readonly workerId: string;
}

/** An HTTP proxy in front of a Work API that notes who asked for what, in the order of arrival. */
export class RecordingProxy implements AsyncDisposable {
  readonly arrivals: Arrival[] = [];
  readonly #server: Server;

  private constructor(target: string) {
    const { hostname, port } = new URL(target);
    this.#server = createServer((request, response) => {
      const { method = "", headers, url = "" } = request;
      const call = url.split("?")[0]?.split("/").at(-1) ?? "";
      this.arrivals.push({ method, call, workerId: String(headers["anthropic-worker-id"] ?? "") });
      const onward = forward({ hostname, port, method, headers, path: url }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      // Whoever is gone is gone on both sides.
      onward.on("error", () => response.destroy());
      response.on("close", () => onward.destroy());
      request.pipe(onward);
    });
  }

  static async start(target: string): Promise<RecordingProxy> {
    const proxy = new RecordingProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** What changes something at the other side; a poll does, it reserves an item. */
  writes(by: string): Arrival[] {
    return this.arrivals.filter(({ method, call, workerId }) => {
      return workerId.includes(by) && (method !== "GET" || call === "poll");
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
