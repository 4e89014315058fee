import type { IncomingHttpHeaders } from "node:http";
import type { Duplex } from "node:stream";
import { createSecureContext, type SecureContext } from "node:tls";
import { Agent, type Dispatcher, EnvHttpProxyAgent, ProxyAgent } from "undici";
import { Chunks } from "../core/chunks.ts";
import { defined } from "../core/json.ts";
import { isLoopback } from "../core/proxy.ts";
import type { RequestHeaders, TlsMaterial } from "./credentials.ts";

/**
 * Connections for requests with a single answer. Measured on one API server: 64 in flight give about 1,000 creates a
 * second, with HTTP/1.1 and HTTP/2. More only queue in the server, where priority and fairness counts them against
 * other clients.
 */
const UNARY_CONNECTIONS = 64;

/**
 * For Leases, which must not wait behind a burst of other requests. Two, so that a hanging one does not delay the next.
 */
const URGENT_CONNECTIONS = 2;

/** Each watch has a connection, so this only bounds a leak: a watch that waits for a connection sees no changes. */
const STREAM_CONNECTIONS = 1024;

/** Below the idle timeouts of common load balancers (60 s and more) and of the API server (90 s and more). */
const KEEP_ALIVE_MS = 30_000;

/** The API server is near. If a handshake takes longer, the caller's retry opens another connection. */
const CONNECT_TIMEOUT_MS = 10_000;

/** Error pages of a proxy can have any size; a Status fits easily. */
const MAX_ERROR_BODY_BYTES = 64 * 1024;

/** A list without pages: enough for a large cluster, and the most that an operator could hold. */
export const MAX_LIST_BYTES = 128 * 1024 * 1024;

/**
 * One page of a list; 250 Pods of 20 KB are less. Objects of other applications may have 1 MB each, and a page's text
 * and objects take several times that of an operator's half a gigabyte. Those are requested in smaller pages.
 */
export const MAX_PAGE_BYTES = 16 * 1024 * 1024;

/** The largest object of etcd (1.5 MiB) with every character escaped. An operator has little more memory. */
const MAX_OBJECT_BYTES = 16 * 1024 * 1024;

export interface TransportRequest {
  readonly method: Dispatcher.HttpMethod;
  /** With query. */
  readonly path: string;
  readonly headers: RequestHeaders;
  readonly body?: string | undefined;
  readonly signal: AbortSignal;
  /** Bound of the answer's body, except for errors; by default that of one object. Streams have none. */
  readonly maxBytes?: number;
  readonly urgent?: boolean;
  /** Asks for a WebSocket. */
  readonly upgrade?: boolean;
  /** Called when a connection is available and nothing is written yet. If it throws, the request is not sent. */
  readonly beforeSend?: (() => void) | undefined;
}

export interface TransportResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The connection after an upgrade. It belongs to the caller, and `Transport.close` destroys it. */
  readonly socket?: Duplex;
}

export interface TransportStream {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: AsyncIterable<Uint8Array>;
  /** Ends the stream and its connection. */
  destroy(): void;
}

/** The answer exceeded its size bound and was aborted. */
export class TooLargeError extends Error {
  constructor(maxBytes: number) {
    super(`the answer is longer than ${maxBytes} bytes`);
    this.name = "TooLargeError";
  }
}

/** There was no complete answer. */
export class TransportError extends Error {
  /** False if the server certainly received nothing of the request. */
  readonly sent: boolean;
  constructor(cause: unknown, sent: boolean) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.name = "TransportError";
    this.sent = sent;
  }
}

export interface TransportOptions {
  /** `https://host:port`, without a path. */
  readonly origin: string;
  readonly tls: TlsMaterial;
  /** `null`: no proxy. If unset, the environment counts (HTTPS_PROXY, NO_PROXY). */
  readonly proxyUrl?: string | null | undefined;
}

/**
 * Kept-alive connections to one API server, with separate ones for streams. Uses HTTP/1.1: HTTP/2 was no faster, one lost
 * packet stalls all its streams, and the server limits the streams of a connection.
 *
 * Sends a request at most once. The caller decides what a missing answer means.
 */
export class Transport {
  readonly #origin: string;
  readonly #unary: Dispatcher;
  readonly #urgent: Dispatcher;
  readonly #streams: Dispatcher;
  readonly #upgraded = new Set<Duplex>();

  constructor(options: TransportOptions) {
    this.#origin = options.origin;
    // Parse certificates once, not for every connection of a burst.
    const { ca, cert, key } = options.tls;
    const secureContext = createSecureContext(defined({ ca, cert, key }));
    this.#unary = createDispatcher(options, secureContext, UNARY_CONNECTIONS);
    this.#urgent = createDispatcher(options, secureContext, URGENT_CONNECTIONS);
    this.#streams = createDispatcher(options, secureContext, STREAM_CONNECTIONS);
  }

  /** Sends a request and reads its whole answer, whatever the status. Throws TransportError if there is no answer. */
  send(request: TransportRequest): Promise<TransportResponse> {
    return new Promise((resolve, reject) => {
      const answered = (response: TransportResponse) => {
        if (response.socket) this.#adopt(response.socket);
        resolve(response);
      };
      const handler = new UnaryHandler(request, answered, reject);
      const dispatcher = request.upgrade ? this.#streams : request.urgent ? this.#urgent : this.#unary;
      if (!handler.done) dispatcher.dispatch(dispatchOptions(this.#origin, request), handler);
    });
  }

  /** Sends a request with an endless answer. */
  async stream(request: TransportRequest): Promise<TransportStream> {
    try {
      const { statusCode, headers, body } = await this.#streams.request({
        ...dispatchOptions(this.#origin, request),
        signal: request.signal,
      });
      // A stream that is destroyed before its end emits an error that no caller awaits.
      body.on("error", () => {});
      return { status: statusCode, headers, body, destroy: () => void body.destroy() };
    } catch (error) {
      throw new TransportError(error, true);
    }
  }

  /** Aborts all connections. */
  async close(): Promise<void> {
    for (const socket of this.#upgraded) socket.destroy();
    await Promise.all([this.#unary.destroy(), this.#urgent.destroy(), this.#streams.destroy()]);
  }

  /** undici forgets a connection that was upgraded. */
  #adopt(socket: Duplex): void {
    this.#upgraded.add(socket);
    socket.on("error", () => {}).on("close", () => this.#upgraded.delete(socket));
  }
}

/** Reads an error body up to its bound, then ends the stream. */
export async function readErrorBody(stream: TransportStream): Promise<Buffer> {
  const body = new Chunks();
  try {
    for await (const chunk of stream.body) {
      body.push(chunk);
      if (body.bytes >= MAX_ERROR_BODY_BYTES) break;
    }
  } catch {
    // Return what was read so far.
  } finally {
    stream.destroy();
  }
  return body.take().subarray(0, MAX_ERROR_BODY_BYTES);
}

function dispatchOptions(origin: string, request: TransportRequest) {
  // The caller's signal bounds all times on the caller's clock, so undici's timeouts are off.
  return {
    origin,
    method: request.method,
    path: request.path,
    headers: request.headers,
    body: request.body ?? null,
    ...(request.upgrade ? { upgrade: "websocket" } : {}),
    // By default undici closes the connection after a DELETE with a body, because some servers do not read it. An API
    // server does, and a handshake for each deletion with preconditions would cost both sides.
    reset: false,
    headersTimeout: 0,
    bodyTimeout: 0,
  };
}

function createDispatcher(
  { origin, tls, proxyUrl }: TransportOptions,
  secureContext: SecureContext,
  connections: number,
): Dispatcher {
  // Without `ca`, Node uses its own authorities and those of NODE_EXTRA_CA_CERTS.
  const connect = { ...tls, secureContext, timeout: CONNECT_TIMEOUT_MS };
  const options = {
    connections,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    connect,
    requestTls: connect,
  };
  if (typeof proxyUrl === "string") return new ProxyAgent({ ...options, uri: proxyUrl });
  if (proxyUrl === null || isLoopback(new URL(origin).hostname)) return new Agent(options);
  return new EnvHttpProxyAgent(options);
}

class UnaryHandler implements Dispatcher.DispatchHandler {
  done = false;
  #sent = false;
  #status = 0;
  #headers: IncomingHttpHeaders = {};
  readonly #body = new Chunks();
  #controller: Dispatcher.DispatchController | undefined;
  readonly #request: TransportRequest;
  readonly #resolve: (response: TransportResponse) => void;
  readonly #reject: (error: TransportError) => void;

  constructor(
    request: TransportRequest,
    resolve: (response: TransportResponse) => void,
    reject: (error: TransportError) => void,
  ) {
    this.#request = request;
    this.#resolve = resolve;
    this.#reject = reject;
    if (request.signal.aborted) this.#fail(request.signal.reason);
    else request.signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  // A request cannot be removed from undici's queue while it waits for a connection, so it is aborted when it starts.
  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.done) {
      controller.abort(new Error("aborted before it was sent"));
      return;
    }
    this.#request.beforeSend?.();
    this.#sent = true;
  }

  onRequestUpgrade(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex,
  ): void {
    if (this.#finish()) this.#resolve({ status, headers, body: Buffer.alloc(0), socket });
    else socket.destroy();
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    this.#status = status;
    this.#headers = headers;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.done) return;
    this.#body.push(chunk);
    if (this.#isError && this.#body.bytes >= MAX_ERROR_BODY_BYTES) {
      this.#succeed();
      controller.abort(new Error("the rest of a long error body was not read"));
    } else if (this.#body.bytes > this.#maxBytes) {
      controller.abort(new TooLargeError(this.#maxBytes));
    }
  }

  onResponseEnd(): void {
    this.#succeed();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#fail(error);
  }

  #onAbort = () => {
    const { reason } = this.#request.signal;
    this.#fail(reason);
    this.#controller?.abort(reason instanceof Error ? reason : new Error("aborted", { cause: reason }));
  };

  get #maxBytes(): number {
    return this.#request.maxBytes ?? MAX_OBJECT_BYTES;
  }

  /** Redirects count as errors: they are not followed. */
  get #isError(): boolean {
    return this.#status >= 300;
  }

  #succeed(): void {
    if (!this.#finish()) return;
    const body = this.#body.take().subarray(0, this.#isError ? MAX_ERROR_BODY_BYTES : this.#maxBytes);
    this.#resolve({ status: this.#status, headers: this.#headers, body });
  }

  #fail(cause: unknown): void {
    if (this.#finish()) this.#reject(new TransportError(cause, this.#sent));
  }

  #finish(): boolean {
    if (this.done) return false;
    this.done = true;
    this.#request.signal.removeEventListener("abort", this.#onAbort);
    return true;
  }
}
