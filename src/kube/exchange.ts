import type { Random } from "../core/backoff.ts";
import { type Clock, deadlineSignal, sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { type ProxySettings, proxyFor } from "../core/proxy.ts";
import { ServerTime } from "../core/server-time.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { ClusterAccess } from "./config.ts";
import { Credentials, type RequestCredentials, type RequestHeaders } from "./credentials.ts";
import { isTooLarge, KubeApiError, LeadershipLostError, NO_CREDENTIALS, TOO_LARGE } from "./errors.ts";
import { errorOfAnswer } from "./status.ts";
import {
  readErrorBody,
  TooLargeError,
  Transport,
  TransportError,
  type TransportResponse,
  type TransportStream,
} from "./transport.ts";

/** Maximum number of tries of one call. After that, the caller applies its own backoff. */
const MAX_ATTEMPTS = 4;

/** Delay before a read is repeated after its connection broke. A restarting API server needs about a second. */
const RESEND_DELAY_MS = 200;

/** Adds up to a quarter, so that clients with the same Retry-After do not return at the same instant. */
const RETRY_JITTER = 0.25;

export type Verb = "get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "raw";

/** One request to the API server. */
export interface Call {
  readonly verb: Verb;
  /** Label of the metrics: `pods`, `pods/status`. From a closed set. */
  readonly label: string;
  /** For messages: `get pods agents/berth-x`. */
  readonly about: string;
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Relative to the server's base path, with query. */
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly accept?: string | undefined;
  /** GET, PUT and DELETE may be repeated after a refusal. */
  readonly repeatable: boolean;
  /** Must not wait for a connection behind other requests: renewals of the Lease. */
  readonly urgent: boolean;
  readonly timeoutMs: number;
  /** Bound of the answer in bytes; by default that of one object. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal | undefined;
  /** Headers of a WebSocket's handshake. The answer then has a socket. */
  readonly handshake?: RequestHeaders;
  /** Throws when the process must not act. Called before the call and again when a connection is available. */
  readonly fence?: (() => void) | undefined;
}

export interface ExchangeOptions {
  readonly access: ClusterAccess;
  readonly clock: Clock;
  readonly metrics?: Metrics | undefined;
  readonly proxy?: ProxySettings | undefined;
  readonly userAgent: string;
  readonly random?: Random;
}

/**
 * Sends one request and reads its answer: credentials, bounded retries, a total timeout, metrics, errors.
 *
 * It repeats any call once after a 401 if fresh credentials are possible (the server refused it before acting); a call
 * marked `repeatable` after a 429 or 503 with Retry-After; a read whose connection broke. It never repeats a write
 * without an answer: only the caller can find out whether the write took effect.
 */
export class Exchange {
  readonly #options: ExchangeOptions;
  readonly #credentials: Credentials;
  readonly #serverTime: ServerTime;
  readonly #origin: string;
  readonly #basePath: string;
  #transport: Transport | undefined;
  #identity: string | undefined;
  #closed = false;

  constructor(options: ExchangeOptions) {
    this.#options = options;
    this.#credentials = new Credentials(options.access.auth, options.clock);
    const { clock } = options;
    this.#serverTime = new ServerTime((ms) => clock.now() + ms - clock.monotonic());
    const url = new URL(options.access.server);
    this.#origin = url.origin;
    this.#basePath = url.pathname.replace(/\/+$/, "");
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  /**
   * The current time of the API server's clock: our wall clock, limited to the range that the Date headers allow.
   * Before the first answer it is our wall clock.
   */
  now(): number {
    const { earliestMs, latestMs } = this.#serverTime.at(this.clock.monotonic(), 0);
    return Math.min(Math.max(this.clock.now(), earliestMs), latestMs);
  }

  /** From 0 to 1, to spread what many streams or clients would do at once. */
  random(): number {
    return (this.#options.random ?? Math.random)();
  }

  /** Sends a call and returns its answer of status 2xx or 101. Throws KubeApiError, or the error of the fence. */
  async send(call: Call): Promise<TransportResponse> {
    const deadline = deadlineSignal(this.clock, call.timeoutMs, call.signal);
    try {
      return await this.#attempts(call, deadline.signal);
    } finally {
      deadline.cancel();
    }
  }

  async #attempts(call: Call, signal: AbortSignal): Promise<TransportResponse> {
    const until = this.clock.monotonic() + call.timeoutMs;
    let fresh = false;
    for (let attempt = 1; ; attempt += 1) {
      let failure: KubeApiError;
      let delayMs: number | undefined;
      try {
        const answer = await this.#attempt(call, signal, fresh);
        if (answer.status < 300) return answer;
        failure = errorOfAnswer(call.about, answer, isWrite(call));
        if (answer.status === 401 && !fresh && this.#credentials.refreshable) {
          fresh = true;
          continue;
        }
        delayMs = retryDelay(call, failure);
      } catch (error) {
        failure = this.#noAnswer(call, error, signal);
        // An answer that is too large would be too large again.
        delayMs = isWrite(call) || signal.aborted || isTooLarge(failure) ? undefined : RESEND_DELAY_MS;
      }
      if (delayMs === undefined || attempt >= MAX_ATTEMPTS) throw failure;
      const waitMs = delayMs * (1 + RETRY_JITTER * this.random());
      if (this.clock.monotonic() + waitMs >= until) throw failure;
      if (!(await sleep(this.clock, waitMs, signal))) throw failure;
    }
  }

  async #attempt(call: Call, signal: AbortSignal, fresh: boolean): Promise<TransportResponse> {
    const started = this.clock.monotonic();
    let code = "no_answer";
    try {
      const request = await this.#request(call, signal, fresh);
      const answer = await request.transport.send(request);
      code = String(answer.status);
      // A refusal may come from a proxy with another clock, an upgrade from a kubelet, and sessions end by this time.
      if (answer.status >= 200 && answer.status < 300) {
        this.#serverTime.observe(started, this.clock.monotonic(), Date.parse(answer.headers.date ?? ""));
      }
      return answer;
    } finally {
      this.#count(call, code);
      this.#options.metrics?.kubeRequestSeconds.observe({ verb: call.verb }, (this.clock.monotonic() - started) / 1000);
    }
  }

  /** Opens a stream. Throws KubeApiError unless the status is 2xx. The caller ends it with `signal` or `destroy`. */
  async open(call: Call, signal: AbortSignal): Promise<TransportStream> {
    for (let fresh = false; ; fresh = true) {
      const stream = await this.#openOnce(call, signal, fresh);
      if (stream.status < 300) return stream;
      const body = await readErrorBody(stream);
      if (stream.status === 401 && !fresh && this.#credentials.refreshable) continue;
      throw errorOfAnswer(call.about, { status: stream.status, headers: stream.headers, body }, false);
    }
  }

  async #openOnce(call: Call, signal: AbortSignal, fresh: boolean): Promise<TransportStream> {
    let code = "no_answer";
    try {
      const request = await this.#request(call, signal, fresh);
      const stream = await request.transport.stream(request);
      code = String(stream.status);
      return stream;
    } catch (error) {
      throw this.#noAnswer(call, error, signal);
    } finally {
      this.#count(call, code);
    }
  }

  /** Cancels everything. Running and later calls throw. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#transport?.close();
  }

  async #request(call: Call, signal: AbortSignal, fresh: boolean) {
    const credentials = await this.#credentialsFor(call, signal, fresh);
    call.fence?.();
    const headers: RequestHeaders = {
      accept: call.accept ?? "application/json",
      "user-agent": this.#options.userAgent,
      ...credentials.headers,
      ...call.handshake,
    };
    if (call.body !== undefined) headers["content-type"] = call.contentType ?? "application/json";
    return {
      transport: this.#transportFor(credentials),
      method: call.method,
      path: this.#basePath + call.path,
      headers,
      body: call.body === undefined ? undefined : JSON.stringify(call.body),
      signal,
      ...(call.maxBytes === undefined ? {} : { maxBytes: call.maxBytes }),
      beforeSend: call.fence,
      urgent: call.urgent,
      upgrade: call.handshake !== undefined,
    };
  }

  async #credentialsFor(call: Call, signal: AbortSignal, fresh: boolean): Promise<RequestCredentials> {
    try {
      return await raceAbort(this.#credentials.current(fresh), signal);
    } catch (cause) {
      if (signal.aborted) throw cause;
      throw new KubeApiError(`${call.about}: no credentials for the API server: ${errorText(cause)}`, {
        status: 0,
        reason: NO_CREDENTIALS,
        cause,
      });
    }
  }

  /** Connections are bound to a client certificate: a new certificate needs new connections. */
  #transportFor({ cert, key }: RequestCredentials): Transport {
    if (this.#closed) throw new Error("the client is closed");
    if (this.#transport && this.#identity === cert) return this.#transport;
    const { ca, tlsServerName, insecureSkipTlsVerify } = this.#options.access;
    const old = this.#transport;
    // Throws if the certificate is unreadable or does not match its key. The old transport then stays with the old
    // certificate.
    this.#transport = new Transport({
      origin: this.#origin,
      proxyUrl: this.#proxyUrl(),
      tls: {
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
        ...(tlsServerName === undefined ? {} : { servername: tlsServerName }),
        ...(insecureSkipTlsVerify ? { rejectUnauthorized: false } : {}),
      },
    });
    this.#identity = cert;
    void old?.close();
    return this.#transport;
  }

  /** `null`: no proxy; undefined: as in the environment. */
  #proxyUrl(): string | null | undefined {
    const { access, proxy } = this.#options;
    if (access.proxyUrl !== undefined) return access.proxyUrl;
    return proxy && (proxyFor(new URL(access.server), proxy) ?? null);
  }

  #noAnswer(call: Call, error: unknown, signal: AbortSignal): KubeApiError {
    const cause = error instanceof TransportError ? error.cause : error;
    if (cause instanceof LeadershipLostError || cause instanceof KubeApiError) throw cause;
    const sent = error instanceof TransportError && error.sent;
    const text = signal.aborted ? errorText(signal.reason) : errorText(cause);
    return new KubeApiError(`${call.about}: no answer from the API server: ${text}`, {
      status: 0,
      maybeApplied: sent && isWrite(call),
      ...(cause instanceof TooLargeError ? { reason: TOO_LARGE } : {}),
      cause,
    });
  }

  #count(call: Call, code: string): void {
    this.#options.metrics?.kubeRequests.inc({ verb: call.verb, resource: call.label, code });
  }
}

function isWrite(call: Call): boolean {
  return call.method !== "GET";
}

/** Returns the delay before a refused call is repeated; undefined if it is not. */
function retryDelay(call: Call, failure: KubeApiError): number | undefined {
  if (!call.repeatable || (failure.status !== 429 && failure.status !== 503)) return undefined;
  return failure.retryAfterMs;
}

function raceAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
