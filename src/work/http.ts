import { Agent, type Dispatcher, EnvHttpProxyAgent } from "undici";
import { Chunks } from "../core/chunks.ts";
import { type Clock, deadlineSignal } from "../core/clock.ts";

/**
 * The calls that keep leases and claims correct have separate connections. They must not wait for a connection behind
 * long polls, which hold theirs for up to a second each.
 */
export type Lane = "bulk" | "protocol";
const LANES: readonly Lane[] = ["bulk", "protocol"];

/**
 * 64 connections are enough for a long poll and a list of some dozen Environments at once; further calls wait, within
 * their timeout. The protocol lane has a connection for every heartbeat that may be in flight (budget.ts), and some for
 * the other protocol calls.
 */
const MAX_CONNECTIONS: Readonly<Record<Lane, number>> = { bulk: 64, protocol: 192 };
/** Below the usual request timeout. A slower connection attempt fails, and the next call tries again. */
const CONNECT_TIMEOUT_MS = 5_000;
/**
 * Idle connections are closed before servers commonly close them (5 s and up). If a request is sent into a closing
 * connection, the operator can't tell whether it was applied.
 */
const KEEP_ALIVE_MS = 4_000;

export interface HttpRequest {
  readonly method: "GET" | "POST";
  readonly origin: string;
  /** The encoded path and query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  readonly lane: Lane;
  /** Limits the whole call: waiting for a connection, connecting, sending, and reading the complete body. */
  readonly timeoutMs: number;
  /** Limit for the body of a successful reply, in bytes. Of a refusal's body, MAX_REFUSAL_BYTES are kept. */
  readonly maxBytes: number;
  readonly signal?: AbortSignal | undefined;
  /** Called just before the first byte is sent, once a connection is ready. If it throws, the request is not sent. */
  readonly beforeSend?: (() => void) | undefined;
}

/** The times of a request. `sent...` is the instant just before its first byte was written to the socket. */
export interface HttpTimes {
  readonly sentAtMs: number;
  readonly sentAtWallMs: number;
  readonly answeredAtMs: number;
}

export interface HttpReply extends HttpTimes {
  readonly status: number;
  /** Names are in lower case. Of repeated headers, the first one counts. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
  /** Undefined if the body is complete. Only a refusal (status outside 2xx) may have an incomplete body. */
  readonly partial?: HttpFailureKind;
}

/** A refusal's body is only quoted, in part, so no more than this is read. */
export const MAX_REFUSAL_BYTES = 64 * 1024;

export type HttpFailureKind = "timeout" | "aborted" | "network" | "too-large";

/** A request without a complete reply. */
export class HttpFailure extends Error {
  readonly kind: HttpFailureKind;
  /** False: not a byte of the request has left this process, and none will. */
  readonly sent: boolean;
  readonly times: HttpTimes | undefined;
  /** The status, if the head of the reply arrived. */
  readonly status: number | undefined;
  constructor(
    kind: HttpFailureKind,
    at: { sent: boolean; times: HttpTimes | undefined; status: number | undefined },
    cause: unknown,
  ) {
    super(kind, { cause });
    this.name = "HttpFailure";
    this.kind = kind;
    this.sent = at.sent;
    this.times = at.times;
    this.status = at.status;
  }
}

/** The HTTP functions that a client needs. */
export interface HttpSender {
  /**
   * Sends the request once and never retries.
   * @throws HttpFailure
   */
  send(request: HttpRequest): Promise<HttpReply>;
}

export interface WorkHttpOptions {
  readonly clock: Clock;
  /** Per origin and lane. */
  readonly maxConnectionsPerOrigin?: number;
  /**
   * Proxies. The default is HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the process. Loopback origins are never proxied, as
   * in Go's net/http, because a proxy on another host can't reach them.
   */
  readonly proxy?: { readonly httpsProxy?: string; readonly httpProxy?: string; readonly noProxy?: string };
  readonly connectTimeoutMs?: number;
  readonly keepAliveMs?: number;
}

/**
 * Kept-alive connections to Work APIs, shared by all clients of the process, with one pool per origin and lane. TLS is
 * verified against Node's roots and NODE_EXTRA_CA_CERTS. Redirects are not followed, and nothing is retried.
 */
export class WorkHttp implements HttpSender {
  readonly #clock: Clock;
  readonly #proxied = new Map<Lane, Dispatcher>();
  readonly #direct = new Map<Lane, Dispatcher>();

  constructor(options: WorkHttpOptions) {
    this.#clock = options.clock;
    const agent = {
      pipelining: 1,
      // HTTP/2 would send all calls over one connection. If it broke, the outcome of all of them would be unknown at
      // once.
      allowH2: false,
      connectTimeout: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      keepAliveTimeout: options.keepAliveMs ?? KEEP_ALIVE_MS,
      keepAliveMaxTimeout: options.keepAliveMs ?? KEEP_ALIVE_MS,
      // Each request has its own deadline as a whole.
      headersTimeout: 0,
      bodyTimeout: 0,
    };
    for (const lane of LANES) {
      const connections = options.maxConnectionsPerOrigin ?? MAX_CONNECTIONS[lane];
      this.#proxied.set(lane, new EnvHttpProxyAgent({ ...agent, connections, ...options.proxy }));
      this.#direct.set(lane, new Agent({ ...agent, connections }));
    }
  }

  async send(request: HttpRequest): Promise<HttpReply> {
    return await new Exchange(this.#clock, request).run(this.#dispatcher(request));
  }

  /** Waits for the requests in flight (each has a timeout) and closes all connections. New requests fail. */
  async close(): Promise<void> {
    await Promise.all(this.#all().map((dispatcher) => dispatcher.close()));
  }

  /** Aborts all requests and closes all connections. */
  async destroy(): Promise<void> {
    await Promise.all(this.#all().map((dispatcher) => dispatcher.destroy()));
  }

  #dispatcher({ origin, lane }: HttpRequest): Dispatcher {
    const dispatcher = (isLoopback(new URL(origin).hostname) ? this.#direct : this.#proxied).get(lane);
    if (!dispatcher) throw new TypeError(`unknown lane ${lane}`);
    return dispatcher;
  }

  #all(): Dispatcher[] {
    return [...this.#proxied.values(), ...this.#direct.values()];
  }
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

/**
 * One request and its reply. Invariants: it settles once. `#started` is set just before undici writes. A request that
 * has settled earlier is aborted there, so that nothing is sent after its failure was reported.
 */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #clock: Clock;
  readonly #request: HttpRequest;
  readonly #reply = Promise.withResolvers<HttpReply>();
  readonly #deadline: ReturnType<typeof deadlineSignal>;
  #settled = false;
  #controller: Dispatcher.DispatchController | undefined;
  #started: { ms: number; wallMs: number } | undefined;
  #status: number | undefined;
  #headers: ReadonlyMap<string, string> = new Map();
  readonly #body = new Chunks();

  constructor(clock: Clock, request: HttpRequest) {
    this.#clock = clock;
    this.#request = request;
    this.#deadline = deadlineSignal(clock, request.timeoutMs, request.signal);
  }

  run(dispatcher: Dispatcher): Promise<HttpReply> {
    const { method, origin, path, headers, body } = this.#request;
    const { signal } = this.#deadline;
    if (signal.aborted) this.#onDeadline();
    else {
      signal.addEventListener("abort", () => this.#onDeadline(), { once: true });
      try {
        dispatcher.dispatch({ method, origin, path, headers: { ...headers }, body: body ?? null }, this);
      } catch (error) {
        this.#fail("network", error);
      }
    }
    return this.#reply.promise;
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#settled || this.#started) {
      // A second start would be a retry, which only the caller may decide.
      controller.abort(new Error("the request is not repeated"));
      return;
    }
    this.#controller = controller;
    try {
      this.#request.beforeSend?.();
    } catch (error) {
      this.#fail("aborted", error);
      return;
    }
    this.#started = { ms: this.#clock.monotonic(), wallMs: this.#clock.now() };
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (this.#settled || status < 200) return;
    this.#status = status;
    this.#headers = new Map(
      Object.entries(headers).flatMap(([name, value]) => {
        const first = Array.isArray(value) ? value[0] : value;
        return first === undefined ? [] : [[name.toLowerCase(), first]];
      }),
    );
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#settled) return;
    this.#body.push(chunk);
    const limit = this.#isRefusal() ? MAX_REFUSAL_BYTES : this.#request.maxBytes;
    if (this.#body.bytes > limit) this.#fail("too-large", undefined);
  }

  onResponseEnd(): void {
    if (this.#settled) return;
    if (this.#status === undefined) this.#fail("network", new Error("an answer without a status"));
    else this.#succeed(this.#status, undefined);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#fail("network", error);
  }

  #onDeadline(): void {
    const timedOut = !this.#request.signal?.aborted;
    this.#fail(timedOut ? "timeout" : "aborted", this.#deadline.signal.reason);
  }

  /** A refusal is known by its status, and is reported even if its body is incomplete. */
  #isRefusal(): boolean {
    return this.#status !== undefined && (this.#status < 200 || this.#status > 299);
  }

  #fail(kind: HttpFailureKind, cause: unknown): void {
    if (this.#settled) return;
    if (this.#status !== undefined && this.#isRefusal() && kind !== "aborted") {
      this.#succeed(this.#status, kind);
    } else {
      this.#settle();
      this.#reply.reject(
        new HttpFailure(kind, { sent: this.#started !== undefined, times: this.#times(), status: this.#status }, cause),
      );
    }
    this.#controller?.abort(cause instanceof Error ? cause : new Error(kind));
  }

  #succeed(status: number, partial: HttpFailureKind | undefined): void {
    const times = this.#times();
    if (!times) return;
    this.#settle();
    const body = this.#body.take();
    this.#reply.resolve({ ...times, status, headers: this.#headers, body, ...(partial ? { partial } : {}) });
  }

  #settle(): void {
    this.#settled = true;
    this.#deadline.cancel();
  }

  #times(): HttpTimes | undefined {
    const { ms, wallMs } = this.#started ?? {};
    if (ms === undefined || wallMs === undefined) return undefined;
    return { sentAtMs: ms, sentAtWallMs: wallMs, answeredAtMs: this.#clock.monotonic() };
  }
}
