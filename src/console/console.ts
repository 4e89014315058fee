import type { IncomingMessage, ServerResponse } from "node:http";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { addressText, boundedServer, closerOf, listen, readBindAddress } from "../observe/http-server.ts";
import type { Logger } from "../observe/logger.ts";
import type { EnvironmentObserver } from "../reconcile/environment-runtime.ts";
import { Changes, type Replica } from "./changes.ts";
import type { EndedBounds } from "./ended-sessions.ts";
import { type PageFile, readPage } from "./page-files.ts";
import { Seen } from "./seen.ts";
import { isOwnHost, MAX_VIEWERS, Viewers } from "./viewers.ts";

const MAX_HEADER_BYTES = 16_384;
/** Each viewer has one open connection, and its browser a few more while it loads the page. */
const MAX_CONNECTIONS = 6 * MAX_VIEWERS;
/** How long a refused browser waits before it tries again. */
const RETRY_SECONDS = 30;

const EVENTS_PATH = "/events";

/** The page may only load its own files, and may not be framed. */
const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/** Sent with every answer. */
const HEADERS = {
  "content-security-policy": PAGE_POLICY,
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "cache-control": "no-store",
} as const;

export interface ConsoleOptions {
  /** In the form that parseBindAddress reads. */
  readonly bindAddress: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly identity: string;
  readonly version: string;
  readonly docsUrl: string;
  readonly shards: number;
  /** The number of ended sessions to keep. */
  readonly bounds?: EndedBounds;
}

/**
 * The console of one operator: collects what the operator reports, and serves the page that shows it. Read-only: no
 * request changes anything.
 */
export class Console implements AsyncDisposable {
  /** Receives the operator's reports. */
  readonly observer: EnvironmentObserver;
  readonly #options: ConsoleOptions;
  readonly #viewers: Viewers;
  #page: ReadonlyMap<string, PageFile> = new Map();
  #served: () => readonly number[] = () => [];
  readonly #server = boundedServer(
    { maxHeaderBytes: MAX_HEADER_BYTES, maxConnections: MAX_CONNECTIONS },
    (request, response) => this.#answer(request, response),
  );

  constructor(options: ConsoleOptions) {
    const { clock, bounds, logger } = options;
    this.#options = options;
    const seen = new Seen(clock, bounds);
    this.observer = seen;
    this.#viewers = new Viewers({
      clock,
      changes: new Changes(),
      look: () => ({
        nowMs: clock.now(),
        replica: this.#replica,
        environments: seen.environments(),
        sessions: seen.sessions(),
      }),
      onError: (error) => logger.warn({ error: errorText(error) }, "the console could not look"),
    });
  }

  /**
   * Starts to listen. `served` returns the shards that this replica serves. Returns the address, or undefined if the
   * console is off.
   * @throws ConfigError if the address is invalid or can't be listened on.
   */
  async start(served: () => readonly number[]): Promise<string | undefined> {
    const { bindAddress, logger } = this.#options;
    const bind = readBindAddress(bindAddress);
    if (bind === undefined) return undefined;
    this.#served = served;
    this.#page = await readPage();
    await listen(this.#server, bind, bindAddress);
    this.#server.on("error", (error) => logger.warn({ err: error }, "the console had an error"));
    return addressText(this.#server);
  }

  async close(): Promise<void> {
    this.#viewers.close();
    if (this.#server.listening) await closerOf(this.#server)();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #replica(): Replica {
    const { identity, version, docsUrl, shards } = this.#options;
    return { identity, version, docsUrl, shards, served: this.#served() };
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    // Request bodies are never read. Close the connection after the answer, so that a body is not parsed as the next
    // request.
    const { headers, method } = request;
    if (headers["content-length"] !== undefined || headers["transfer-encoding"] !== undefined) {
      response.setHeader("connection", "close");
    }
    const answer = this.#answerTo(request);
    const length = answer.bytes === undefined ? {} : { "content-length": answer.bytes.length };
    response.writeHead(answer.status, { "content-type": answer.type, ...length, ...answer.headers });
    if (method === "HEAD") response.end();
    else if (answer.bytes === undefined) this.#viewers.add(response);
    else response.end(answer.bytes);
  }

  #answerTo({ headers, method, url = "/" }: IncomingMessage): Answer {
    if (!isOwnHost(headers.host)) {
      return textAnswer(421, "ask by localhost or by an IP address: see docs/console.md, Who can see it");
    }
    if (method !== "GET" && method !== "HEAD") {
      return { ...textAnswer(405, "the console is read-only: GET and HEAD"), headers: { allow: "GET, HEAD" } };
    }
    const path = url.split("?", 1)[0] ?? "/";
    if (path === EVENTS_PATH) return this.#events(headers["sec-fetch-site"]);
    const file = this.#page.get(path);
    return file ? { status: 200, ...file } : textAnswer(404, "not found; the console is at /");
  }

  #events(site: string | string[] | undefined): Answer {
    // A page of another site could not read the events, but would use up a viewer's slot.
    if (site !== undefined && site !== "same-origin" && site !== "none") {
      return textAnswer(403, "events are for the console's own page");
    }
    if (this.#viewers.isFull) {
      const full = textAnswer(503, `${MAX_VIEWERS} others watch already: close a window`);
      return { ...full, headers: { "retry-after": RETRY_SECONDS } };
    }
    return { status: 200, type: "text/event-stream" };
  }
}

/** Without `bytes` the connection stays open for events. */
interface Answer {
  readonly status: number;
  readonly type: string;
  readonly bytes?: Buffer;
  readonly headers?: Readonly<Record<string, string | number>>;
}

function textAnswer(status: number, text: string) {
  return { status, type: "text/plain; charset=utf-8", bytes: Buffer.from(`${text}\n`) };
}
