import type { ServerResponse } from "node:http";
import type { SimulatorClock } from "./clock.ts";
import type { Deadlines } from "./deadlines.ts";
import { ApiError } from "./errors.ts";
import { type Fault, withWrongTypes } from "./faults.ts";
import { json, type Reply, stamp, write, writeText } from "./http.ts";

/** The chunk size of a body that never ends. */
const ENDLESS_CHUNK = " ".repeat(16 * 1024);
const ERROR_PAGE = "<html><body><h1>Bad Gateway</h1></body></html>";

/** Applies faults to requests and replies. */
export class Strikes {
  readonly #clock: SimulatorClock;
  readonly #deadlines: Deadlines;

  constructor(clock: SimulatorClock, deadlines: Deadlines) {
    this.#clock = clock;
    this.#deadlines = deadlines;
  }

  /** Applies a fault before the request has any effect. @returns false if the request ends here */
  async before(fault: Fault, response: ServerResponse): Promise<boolean> {
    switch (fault.kind) {
      case "latency":
        await this.#pass(fault.ms);
        return true;
      case "hang":
        return false;
      case "reset":
        response.socket?.resetAndDestroy();
        return false;
      case "status":
        if (fault.retryAfterSeconds !== undefined) response.setHeader("retry-after", String(fault.retryAfterSeconds));
        write(response, json(fault.status, statusError(fault.status).body), this.#clock.now());
        return false;
      case "html":
        stamp(response, this.#clock.now());
        writeText(response, fault.status, "text/html", ERROR_PAGE);
        return false;
      default:
        return true;
    }
  }

  /** Applies a fault to the reply of a request that was handled. */
  async after(fault: Fault, reply: Reply, response: ServerResponse): Promise<void> {
    stamp(response, this.#clock.now());
    switch (fault.kind) {
      case "lost-reply":
        response.socket?.resetAndDestroy();
        return;
      case "hang":
        return;
      case "truncated": {
        const text = JSON.stringify(reply.body ?? { type: "work" });
        writeText(response, reply.status, "application/json", text.slice(0, Math.ceil(text.length / 2)));
        return;
      }
      case "wrong-types": {
        const status = reply.body === undefined ? 200 : reply.status;
        write(response, json(status, withWrongTypes(reply.body ?? null)), this.#clock.now());
        return;
      }
      case "endless":
        endless(response);
        return;
      default:
        if (fault.kind === "latency") await this.#pass(fault.ms);
        write(response, reply, this.#clock.now());
    }
  }

  #pass(ms: number): Promise<void> {
    return new Promise((resolve) => this.#deadlines.after(ms, resolve));
  }
}

const HTTP_TOO_MANY = 429;
const HTTP_OVERLOADED = 529;

function statusError(status: number): ApiError {
  if (status === HTTP_TOO_MANY) return new ApiError(status, "rate_limit_error", "injected fault: too many requests");
  if (status === HTTP_OVERLOADED) return new ApiError(status, "overloaded_error", "injected fault: overloaded");
  return new ApiError(status, status >= 500 ? "api_error" : "invalid_request_error", "injected fault");
}

function endless(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "application/json" });
  const more = () => {
    while (!response.destroyed && response.write(ENDLESS_CHUNK));
  };
  response.on("drain", more);
  response.write('{"id":"');
  more();
}
