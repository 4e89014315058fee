import { lookup } from "node:dns";
import { Agent, type Dispatcher, EnvHttpProxyAgent } from "undici";
import { Chunks } from "../core/chunks.ts";
import { type Clock, deadlineSignal } from "../core/clock.ts";
import { guardedConnector, InnerAddressError, Lookups, type Resolve } from "./guarded-connect.ts";

/**
 * Connections of their own: the calls that keep leases and claims true must not queue for a connection behind long
 * polls, which hold theirs for up to a second each.
 */
export type Lane = "bulk" | "protocol";
const LANES: readonly Lane[] = ["bulk", "protocol"];

/**
 * Enough for a long poll and a list of some dozen Environments at once; more wait for a connection, bounded. What keeps
 * leases and claims true gets one for every beat that may be under way (budget.ts), and some for the rest.
 */
const MAX_CONNECTIONS: Readonly<Record<Lane, number>> = { bulk: 64, protocol: 192 };
/** A call waits longer for its own bound than this; a connection that needs more is given up and made anew. */
const CONNECT_TIMEOUT_MS = 5_000;
/**
 * An idle connection is closed by us before servers commonly do (5 s and up): a request sent into a closing connection
 * is one of which nobody knows whether it was applied.
 */
const KEEP_ALIVE_MS = 4_000;

export interface HttpRequest {
  readonly method: "GET" | "POST";
  readonly origin: string;
  /** Path and query, encoded. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  readonly lane: Lane;
  /** Whose turn it is where the origin's name has to be looked up. */
  readonly tenant?: string | undefined;
  /** Bound of everything: waiting for a connection, connecting, sending, and reading the whole body. */
  readonly timeoutMs: number;
  /** Bound of a successful reply's body in bytes; of a refusal's, MAX_REFUSAL_BYTES are kept. */
  readonly maxBytes: number;
  readonly signal?: AbortSignal | undefined;
  /** Asked just before the first byte goes out, when a connection is at hand; what it throws keeps the request back. */
  readonly beforeSend?: (() => void) | undefined;
}

/** When things happened. `sent...` is the instant just before the request's first byte went to the socket. */
export interface HttpTimes {
  readonly sentAtMs: number;
  readonly sentAtWallMs: number;
  readonly answeredAtMs: number;
}

export interface HttpReply extends HttpTimes {
  readonly status: number;
  /** Names in lower case; of repeated headers, the first. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
  /** Undefined when the body was read whole. Only refusals (status outside 2xx) come with a part of their body. */
  readonly partial?: HttpFailureKind;
}

/** A refusal's body is only quoted, shortened: more than this is not read. */
export const MAX_REFUSAL_BYTES = 64 * 1024;

/** `inner-address`: the origin leads to an address that is no public one, which nobody allowed; nothing was connected. */
export type HttpFailureKind = "timeout" | "aborted" | "network" | "inner-address" | "too-large";

/** No whole reply. */
export class HttpFailure extends Error {
  readonly kind: HttpFailureKind;
  /** False: not one byte of the request left this process, and none will. */
  readonly sent: boolean;
  readonly times: HttpTimes | undefined;
  /** Status, when the head of the reply had come. */
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

/** What a client needs of HTTP. */
export interface HttpSender {
  /** Sends once, never again. @throws HttpFailure */
  send(request: HttpRequest): Promise<HttpReply>;
}

export interface WorkHttpOptions {
  readonly clock: Clock;
  /**
   * Whether an origin may be at an address that is no public one. Asked for every connection but those that a proxy
   * makes, which resolves names itself.
   */
  readonly mayBeInner: (origin: string) => boolean;
  /** Whether a name was written down by the administrator, or is the default one: its lookups never wait. */
  readonly isListed?: ((hostname: string) => boolean) | undefined;
  /** How names are resolved, where it is not by the machine's own resolver. */
  readonly resolve?: Resolve;
  /** Per origin and lane. */
  readonly maxConnectionsPerOrigin?: number;
  /**
   * Proxies. Unless given, HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the process. Loopback origins are never proxied, as
   * in Go's net/http: no proxy elsewhere can reach them.
   */
  readonly proxy?: { readonly httpsProxy?: string; readonly httpProxy?: string; readonly noProxy?: string };
  readonly connectTimeoutMs?: number;
  readonly keepAliveMs?: number;
}

/**
 * Kept-alive connections to Work APIs, shared by all clients of the process: one pool per origin and lane.
 * TLS is verified against Node's roots and NODE_EXTRA_CA_CERTS. It follows no redirect and repeats nothing. Inner
 * addresses are connected to for origins alone that may have them, whatever a name resolves to, and when.
 */
export class WorkHttp implements HttpSender {
  readonly #clock: Clock;
  readonly #lookups: Lookups;
  readonly #proxied = new Map<Lane, Dispatcher>();
  readonly #direct = new Map<Lane, Dispatcher>();

  constructor(options: WorkHttpOptions) {
    this.#clock = options.clock;
    const connectTimeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const { mayBeInner, isListed } = options;
    this.#lookups = new Lookups(options.clock, options.resolve ?? lookup, isListed);
    const agent = {
      pipelining: 1,
      // HTTP/2 would put all calls on one connection: losing it makes every one of them doubtful at once.
      allowH2: false,
      // Of proxies' own connections; all others are made by `connect`.
      connectTimeout: connectTimeoutMs,
      connect: guardedConnector({ timeoutMs: connectTimeoutMs, mayBeInner, resolve: this.#lookups.resolve }),
      keepAliveTimeout: options.keepAliveMs ?? KEEP_ALIVE_MS,
      keepAliveMaxTimeout: options.keepAliveMs ?? KEEP_ALIVE_MS,
      // Every request is bounded as a whole by its own deadline.
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
    const ended = this.#lookups.request(new URL(request.origin).hostname, request.tenant);
    try {
      return await new Exchange(this.#clock, request).run(this.#dispatcher(request));
    } finally {
      ended();
    }
  }

  /** Lets requests under way finish (each is bounded) and closes all connections. New requests fail. */
  async close(): Promise<void> {
    await Promise.all(this.#all().map((dispatcher) => dispatcher.close()));
  }

  /** Cuts everything off. */
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
 * One request and its reply. Invariants: it settles once; `#started` is set just before undici writes, and a request
 * that was settled earlier is aborted there instead, so that nothing is sent after its failure was reported.
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
      // A second start would be a repeat: what the caller may do again is the caller's decision.
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
    this.#fail(error instanceof InnerAddressError ? "inner-address" : "network", error);
  }

  #onDeadline(): void {
    const timedOut = !this.#request.signal?.aborted;
    this.#fail(timedOut ? "timeout" : "aborted", this.#deadline.signal.reason);
  }

  /** A refusal is known by its status: it is reported also when its body did not come whole. */
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
