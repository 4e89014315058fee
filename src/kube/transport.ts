import type { IncomingHttpHeaders } from "node:http";
import { createSecureContext, type SecureContext } from "node:tls";
import { Agent, type Dispatcher, EnvHttpProxyAgent, ProxyAgent } from "undici";
import { Chunks } from "../core/chunks.ts";
import { defined } from "../core/json.ts";
import type { RequestHeaders, TlsMaterial } from "./credentials.ts";
import { isLoopback } from "./proxy.ts";

/**
 * Connections for requests with an answer of their own. Measured on one API server: 64 in flight give about 1,000
 * creates a second, with HTTP/1.1 and HTTP/2 alike; more only queue on the other side, where priority and fairness
 * counts them against everybody else.
 */
const UNARY_CONNECTIONS = 64;

/** For what must not wait behind a burst of the others: Leases. Two, so that one that hangs does not hold the next one up. */
const URGENT_CONNECTIONS = 2;

/** One per watch, so only a bound against a leak: a watch that had to queue for a connection would be blind. */
const WATCH_CONNECTIONS = 1024;

/** Below the idle times of common load balancers (60 s and more) and of the API server itself (90 s and more). */
const KEEP_ALIVE_MS = 30_000;

/** The API server is near; a handshake that takes longer is as good as none, and the caller's retry finds another one. */
const CONNECT_TIMEOUT_MS = 10_000;

/** Pages of an error from a proxy can be of any size; a Status fits easily. */
const MAX_ERROR_BODY_BYTES = 64 * 1024;

/** A list in one piece: of a large cluster, and all that an operator could ever hold. */
export const MAX_LIST_BYTES = 128 * 1024 * 1024;

/**
 * One page of a list: 250 Pods of 20 KB are less. Somebody's own objects may be of 1 MB each, and what the text and its objects
 * take together is some times as much, of an operator's half a gigabyte: of these fewer are asked for at a time.
 */
export const MAX_PAGE_BYTES = 16 * 1024 * 1024;

/** One of the largest objects etcd takes (1.5 MiB), with every character escaped. An operator has little more memory. */
const MAX_OBJECT_BYTES = 16 * 1024 * 1024;

export interface TransportRequest {
  readonly method: Dispatcher.HttpMethod;
  /** With query. */
  readonly path: string;
  readonly headers: RequestHeaders;
  readonly body?: string | undefined;
  readonly signal: AbortSignal;
  /** Bound of the answer's body, unless it is an error; that of one object unless given. Streams have none. */
  readonly maxBytes?: number;
  readonly urgent?: boolean;
  /** Called at the last moment, with a connection at hand and nothing written yet; the request is not sent if it throws. */
  readonly beforeSend?: (() => void) | undefined;
}

export interface TransportResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface TransportStream {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: AsyncIterable<Uint8Array>;
  /** Ends the stream and its connection. */
  destroy(): void;
}

/** More came than the bound of an answer: it was broken off. */
export class TooLargeError extends Error {
  constructor(maxBytes: number) {
    super(`the answer is longer than ${maxBytes} bytes`);
    this.name = "TooLargeError";
  }
}

/** No whole answer came. */
export class TransportError extends Error {
  /** False when it is certain that the server has seen nothing of the request. */
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
  /** `null`: none. Without it the environment says (HTTPS_PROXY, NO_PROXY). */
  readonly proxyUrl?: string | null | undefined;
}

/**
 * Kept-alive connections to one API server, those of watches apart from the rest. HTTP/1.1 on purpose: HTTP/2 measured
 * no faster, one lost packet stalls all of its streams, and the server caps the streams of a connection.
 *
 * It sends a request at most once: what a missing answer means is for the caller to decide.
 */
export class Transport {
  readonly #origin: string;
  readonly #unary: Dispatcher;
  readonly #urgent: Dispatcher;
  readonly #watches: Dispatcher;

  constructor(options: TransportOptions) {
    this.#origin = options.origin;
    // Certificates are parsed once, not for every connection of a burst.
    const { ca, cert, key } = options.tls;
    const secureContext = createSecureContext(defined({ ca, cert, key }));
    this.#unary = createDispatcher(options, secureContext, UNARY_CONNECTIONS);
    this.#urgent = createDispatcher(options, secureContext, URGENT_CONNECTIONS);
    this.#watches = createDispatcher(options, secureContext, WATCH_CONNECTIONS);
  }

  /** Sends a request and reads its whole answer, of whatever status. Throws TransportError when there is none. */
  send(request: TransportRequest): Promise<TransportResponse> {
    return new Promise((resolve, reject) => {
      const handler = new UnaryHandler(request, resolve, reject);
      const dispatcher = request.urgent ? this.#urgent : this.#unary;
      if (!handler.done) dispatcher.dispatch(dispatchOptions(this.#origin, request), handler);
    });
  }

  /** Sends a request whose answer is a stream without end. */
  async stream(request: TransportRequest): Promise<TransportStream> {
    try {
      const { statusCode, headers, body } = await this.#watches.request({
        ...dispatchOptions(this.#origin, request),
        signal: request.signal,
      });
      // A stream that is destroyed before it is read to its end says so by an error nobody waits for.
      body.on("error", () => {});
      return { status: statusCode, headers, body, destroy: () => void body.destroy() };
    } catch (error) {
      throw new TransportError(error, true);
    }
  }

  /** Breaks all connections off. */
  async close(): Promise<void> {
    await Promise.all([this.#unary.destroy(), this.#urgent.destroy(), this.#watches.destroy()]);
  }
}

/** Reads at most the bound of an error body from a stream, then ends it. */
export async function readErrorBody(stream: TransportStream): Promise<Buffer> {
  const body = new Chunks();
  try {
    for await (const chunk of stream.body) {
      body.push(chunk);
      if (body.bytes >= MAX_ERROR_BODY_BYTES) break;
    }
  } catch {
    // What was read so far is all there is to say.
  } finally {
    stream.destroy();
  }
  return body.take().subarray(0, MAX_ERROR_BODY_BYTES);
}

function dispatchOptions(origin: string, request: TransportRequest) {
  // All bounds of time come from the caller's signal, on the caller's clock: undici's own are off.
  return {
    origin,
    method: request.method,
    path: request.path,
    headers: request.headers,
    body: request.body ?? null,
    // Else undici closes the connection after each DELETE that has a body, since not every server reads it: an API server does,
    // and each deletion with preconditions would cost both sides a handshake.
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
  // Without `ca`, Node verifies against its own authorities and those of NODE_EXTRA_CA_CERTS.
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

  // A request that still waits for a connection can not be taken out of undici's queue: it is aborted once it starts.
  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.done) {
      controller.abort(new Error("aborted before it was sent"));
      return;
    }
    this.#request.beforeSend?.();
    this.#sent = true;
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
      controller.abort(new Error("the rest of a long error body is not read"));
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

  /** A redirect is one, too: it is not followed. */
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
