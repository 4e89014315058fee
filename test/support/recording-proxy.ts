/** An HTTP proxy that records the order of requests to a Work API. */
import { createServer, request as forward, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** A request as it arrived. */
export interface Arrival {
  readonly method: string;
  /** The last segment of the path: poll, ack, heartbeat, stop, stats; `work` for a list. */
  readonly call: string;
  /** The sender's worker id. */
  readonly workerId: string;
}

/** An HTTP proxy in front of a Work API that records which client sent which request, in order of arrival. */
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
      // If one side closes, close the other.
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

  /** Requests that change something at the server. A poll does: it reserves an item. */
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
