import { Agent, request } from "undici";

/** An answer of the API server other than a success. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  constructor(method: string, path: string, status: number, body: string) {
    super(`${method} ${path}: ${status} ${statusMessage(body)}`);
    this.status = status;
  }
}

/** Any object of the Kubernetes API. */
export interface ApiObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata?: {
    readonly name?: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly [field: string]: unknown;
  };
  readonly [field: string]: unknown;
}

export interface ApiRequestOptions {
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Defaults to application/json. */
  readonly contentType?: string;
  /** Headers in addition to those that every request has. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** The API server is on this machine, so a longer wait means that the answer never comes. */
const REQUEST_TIMEOUT_MS = 30_000;
/** Enough to fill a namespace quickly, and few enough not to saturate two cores. */
const CONNECTIONS = 32;

/**
 * A plain client for one API server and one user, for the test-bed and for tests: JSON in, JSON out, no retries. The
 * operator has its own client, but tests that used it could not detect its mistakes.
 */
export class ApiClient {
  readonly server: string;
  readonly #token: string;
  readonly #agent: Agent;

  /**
   * @param ca certificate authority of the server, PEM
   * @param token empty for an anonymous user
   */
  constructor(server: string, ca: string, token: string) {
    this.server = server;
    this.#token = token;
    this.#agent = new Agent({ connections: CONNECTIONS, connect: { ca } });
  }

  /** Sends one request. Throws ApiError for a status of 400 or more. */
  async request<T = ApiObject>(method: string, path: string, options: ApiRequestOptions = {}): Promise<T> {
    const { body, contentType = "application/json", headers = {}, signal } = options;
    const response = await request(this.server + path, {
      method: method as "GET",
      dispatcher: this.#agent,
      headers: {
        ...headers,
        ...(this.#token === "" ? {} : { authorization: `Bearer ${this.#token}` }),
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": contentType }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      headersTimeout: REQUEST_TIMEOUT_MS,
      bodyTimeout: REQUEST_TIMEOUT_MS,
      ...(signal ? { signal } : {}),
    });
    const text = await response.body.text();
    if (response.statusCode >= 400) throw new ApiError(method, path, response.statusCode, text);
    return parse(text) as T;
  }

  get<T = ApiObject>(path: string): Promise<T> {
    return this.request<T>("GET", path);
  }

  create<T = ApiObject>(path: string, body: unknown): Promise<T> {
    return this.request<T>("POST", path, { body });
  }

  delete<T = ApiObject>(path: string, body?: unknown): Promise<T> {
    return this.request<T>("DELETE", path, { body });
  }

  /** Server-side apply that forces conflicts. `path` names the object. */
  apply<T = ApiObject>(path: string, body: unknown, fieldManager = "berth-testbed"): Promise<T> {
    const query = new URLSearchParams({ fieldManager, force: "true" });
    return this.request<T>("PATCH", `${path}?${query}`, { body, contentType: "application/apply-patch+yaml" });
  }

  /** Closes all connections. Idempotent. */
  async close(): Promise<void> {
    if (!this.#agent.destroyed) await this.#agent.destroy();
  }
}

/** Some paths (`/readyz`) answer in plain text. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function statusMessage(body: string): string {
  const value = parse(body);
  if (typeof value === "object" && value !== null && "message" in value) return String(value.message);
  return body.slice(0, 500);
}
