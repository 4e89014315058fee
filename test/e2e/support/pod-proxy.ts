import { realClock, sleep } from "../../../src/core/clock.ts";
import { errorText } from "../../../src/core/errors.ts";
import { type ClusterAccess, loadKubeConfig } from "../../../src/kube/config.ts";
import { Credentials } from "../../../src/kube/credentials.ts";
import { Transport, type TransportResponse } from "../../../src/kube/transport.ts";

/** A port of a Pod. */
export interface PodPort {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
}

export interface ProxiedRequest {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  /** With a leading slash, and with the query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

export interface ProxiedAnswer {
  readonly status: number;
  readonly text: string;
}

/** Limit of one request; longer than a busy node needs. */
const REQUEST_TIMEOUT_MS = 20_000;
/** How long requests are repeated while the API server, or its connection to the Pod, is unavailable. */
const PATIENCE_MS = 60_000;
const PAUSE_MS = 250;
/** The API server's status codes if it can't reach the Pod, or is not ready itself. */
const AWAY = [502, 503, 504];

/**
 * Plain HTTP to Pods and nodes through the API server. A test outside the cluster's network needs only a kubeconfig for
 * it. The API server strips `Authorization`. While the API server is unavailable, requests that can safely be repeated
 * are.
 */
export class PodProxy implements AsyncDisposable {
  readonly #access: ClusterAccess;
  readonly #credentials: Credentials;
  #transport: Transport | undefined;

  constructor(kubeconfig: string) {
    this.#access = loadKubeConfig(kubeconfig);
    this.#credentials = new Credentials(this.#access.auth, realClock);
  }

  /** Resolves with any status that the Pod or the API server answers. @throws {Error} if there is no answer */
  toPod(port: PodPort, request: ProxiedRequest): Promise<ProxiedAnswer> {
    return this.#send(`/api/v1/namespaces/${port.namespace}/pods/http:${port.pod}:${port.port}/proxy`, request);
  }

  /** Sends a request to a port on which a process in the node's own network listens at every address. */
  toNode(node: string, port: number, request: ProxiedRequest): Promise<ProxiedAnswer> {
    return this.#send(`/api/v1/nodes/http:${node}:${port}/proxy`, request);
  }

  async #send(base: string, request: ProxiedRequest): Promise<ProxiedAnswer> {
    const bound = AbortSignal.timeout(PATIENCE_MS);
    // A repeated POST could take effect twice, so it is sent again only if it was certainly not delivered.
    const repeatable = request.method !== "POST";
    for (;;) {
      const answer = await this.#once(base, request).catch((error: unknown) => ({ error }));
      const isAway = "error" in answer ? repeatable : AWAY.includes(answer.status) && isServersOwn(answer.body);
      if (!isAway || bound.aborted) {
        if (!("error" in answer)) return { status: answer.status, text: answer.body.toString("utf8") };
        throw new Error(`${request.method} ${base}${request.path}: ${errorText(answer.error)}`, {
          cause: answer.error,
        });
      }
      await sleep(realClock, PAUSE_MS, bound);
    }
  }

  async #once(base: string, request: ProxiedRequest): Promise<TransportResponse> {
    const { headers, cert, key } = await this.#credentials.current(false);
    this.#transport ??= this.#connect(cert, key);
    return await this.#transport.send({
      method: request.method,
      path: new URL(this.#access.server).pathname.replace(/\/+$/, "") + base + request.path,
      headers: {
        accept: "application/json, text/plain",
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
        ...request.headers,
        ...headers,
      },
      body: request.body === undefined ? undefined : JSON.stringify(request.body),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  }

  #connect(cert: string | undefined, key: string | undefined): Transport {
    const { server, ca, tlsServerName, insecureSkipTlsVerify, proxyUrl } = this.#access;
    return new Transport({
      origin: new URL(server).origin,
      proxyUrl,
      tls: {
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
        ...(tlsServerName === undefined ? {} : { servername: tlsServerName }),
        ...(insecureSkipTlsVerify ? { rejectUnauthorized: false } : {}),
      },
    });
  }

  async close(): Promise<void> {
    await this.#transport?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The API server's own answers are of kind Status; a Pod's are not. */
function isServersOwn(body: Buffer): boolean {
  try {
    const answer = JSON.parse(body.toString("utf8")) as { kind?: unknown };
    return answer.kind === "Status";
  } catch {
    return true;
  }
}
