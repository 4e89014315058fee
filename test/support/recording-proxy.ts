/** An HTTP proxy that records the order of requests to a Work API. */
import { createServer, request as forward, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";

/** A request as it arrived. */
export interface Arrival {
  readonly method: string;
  /** The last segment of the path: poll, ack, heartbeat, stop, stats; `work` for a list. */
  readonly call: string;
  /** The sender's worker id. */
  readonly workerId: string;
}

/** A request and its answer, both complete. */
export interface Exchange {
  readonly method: string;
  /** The path with its query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly sent: string;
  readonly status: number;
  readonly answer: string;
}

/** An HTTP proxy in front of a Work API that records which client sent which request, in order of arrival. */
export class RecordingProxy implements AsyncDisposable {
  readonly arrivals: Arrival[] = [];
  readonly exchanges: Exchange[] = [];
  readonly #server: Server;

  private constructor(target: string) {
    const { hostname, port } = new URL(target);
    this.#server = createServer((request, response) => {
      const { method = "", headers, url = "" } = request;
      const call = url.split("?")[0]?.split("/").at(-1) ?? "";
      this.arrivals.push({ method, call, workerId: String(headers["anthropic-worker-id"] ?? "") });
      const sent = text(request);
      const onward = forward({ hostname, port, method, headers, path: url }, (answer) => {
        const status = answer.statusCode ?? 502;
        response.writeHead(status, answer.headers);
        answer.pipe(response);
        Promise.all([sent, text(answer)]).then(
          ([body, answered]) =>
            this.exchanges.push({ method, path: url, headers, sent: body, status, answer: answered }),
          () => {},
        );
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
