/** A proxy in front of the API server that injects faults. */
import { readFileSync } from "node:fs";
import {
  type ClientRequest,
  createServer,
  type IncomingMessage,
  Agent as PlainAgent,
  request as plainRequest,
  type Server,
  ServerResponse,
} from "node:http";
import { Agent, request as forward } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";

/** A fault for matching requests, each for `times` requests. */
export interface KubeFault {
  readonly kind: KubeFaultKind;
  /** Any method by default. */
  readonly method?: string | undefined;
  /** The plural of the resource; any by default. */
  readonly plural?: string | undefined;
  readonly times: number;
}

/**
 * `reset`: cut before the effect; `lost-reply`: cut after it; `slow`: delayed before the effect; `late`: the reply is
 * delayed; `5xx`, `429`, `conflict`: refused without an effect, with the API server's text.
 */
export type KubeFaultKind = "reset" | "lost-reply" | "slow" | "late" | "5xx" | "429" | "conflict";

/** Longer than the timeout of a claim protocol request (1.5 s), shorter than all other timeouts. */
const SLOW_MS = 2_000;

const REFUSALS = {
  "5xx": { code: 500, reason: "InternalError", message: "etcdserver: request timed out" },
  "429": { code: 429, reason: "TooManyRequests", message: "the server has received too many requests" },
  conflict: { code: 409, reason: "Conflict", message: "the object has been modified" },
} as const;

const EXPIRED = { code: 410, reason: "Expired", message: "too old resource version" } as const;

/** The API server: its URL, and its CA certificate if it is not public. */
interface Target {
  readonly server: string;
  readonly caFile?: string;
}

interface Asked {
  readonly method: string;
  readonly plural: string;
  readonly isWatch: boolean;
}

/**
 * A proxy between one operator and the API server that behaves like failing networks, load balancers and overloaded API
 * servers. It accepts plain HTTP on loopback, so that it can read the requests.
 */
export class KubeProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: URL;
  readonly #agent: PlainAgent;
  readonly #request: typeof plainRequest;
  readonly #faults: { fault: KubeFault; left: number }[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #watches = new Set<ServerResponse>();
  readonly #streams = new Set<Socket>();
  readonly #held: (() => void)[] = [];
  readonly #onStrike: (what: string) => void;
  #mode: "forward" | "refuse" | "stall" = "forward";
  #expiring = 0;

  private constructor(target: Target, onStrike: (what: string) => void) {
    this.#target = new URL(target.server);
    const options = { keepAlive: true };
    const ca = target.caFile === undefined ? {} : { ca: readFileSync(target.caFile) };
    const isPlain = this.#target.protocol === "http:";
    this.#agent = isPlain ? new PlainAgent(options) : new Agent({ ...options, ...ca });
    this.#request = isPlain ? plainRequest : forward;
    this.#onStrike = onStrike;
    this.#server = createServer((request, response) => this.#take(request, response));
    this.#server.on("upgrade", (request, socket) => {
      const response = new ServerResponse(request);
      response.assignSocket(socket as Socket);
      // The server reads no further request from this connection.
      response.shouldKeepAlive = false;
      response.on("finish", () => socket.end());
      this.#take(request, response);
    });
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {});
      if (this.#mode === "refuse") socket.resetAndDestroy();
    });
  }

  /** @param onStrike called with the kind of each fault when it affects a request */
  static async start(target: Target, onStrike: (what: string) => void = () => {}): Promise<KubeProxy> {
    const proxy = new KubeProxy(target, onStrike);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  add(fault: KubeFault): void {
    this.#faults.push({ fault, left: fault.times });
  }

  /** Whether faults remain that have not affected a request. */
  get hasFaults(): boolean {
    return this.#faults.length + this.#expiring > 0;
  }

  get openWatches(): number {
    return this.#watches.size;
  }

  /** The number of requests that wait for `clear`. */
  get held(): number {
    return this.#held.length;
  }

  /** Ends all faults. */
  clear(): void {
    this.#faults.length = 0;
    this.#expiring = 0;
    this.#mode = "forward";
    for (const go of this.#held.splice(0)) go();
  }

  /** Cuts all open and new connections. */
  refuse(): void {
    this.#mode = "refuse";
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Holds requests from now on until `clear`. */
  stall(): void {
    this.#mode = "stall";
  }

  /** Cuts the open watches. Returns their number. */
  dropWatches(): number {
    const open = [...this.#watches];
    for (const response of open) response.socket?.resetAndDestroy();
    return open.length;
  }

  /** Cuts the open watches, and tells as many new ones that their version is too old. */
  expireWatches(): number {
    const open = this.dropWatches();
    this.#expiring += open;
    return open;
  }

  /** Cuts the open streams to containers. Returns their number. */
  dropStreams(): number {
    const open = [...this.#streams];
    for (const socket of open) socket.resetAndDestroy();
    return open.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The server does not count the connections of streams.
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    this.#agent.destroy();
  }

  #take(request: IncomingMessage, response: ServerResponse): void {
    response.on("error", () => {});
    if (this.#mode === "stall") {
      this.#held.push(() => this.#take(request, response));
      return;
    }
    const asked = askedOf(request);
    if (asked.isWatch && this.#expiring > 0) {
      this.#expiring -= 1;
      this.#onStrike("watch:gone");
      refuseWith(response, EXPIRED);
      return;
    }
    const fault = this.#strike(asked);
    if (fault === "reset") {
      request.socket.resetAndDestroy();
      return;
    }
    if (fault === "5xx" || fault === "429" || fault === "conflict") {
      request.resume();
      refuseWith(response, REFUSALS[fault]);
      return;
    }
    if (fault === "slow") setTimeout(() => this.#forward(request, response, asked), SLOW_MS).unref();
    else this.#forward(request, response, asked, fault);
  }

  #strike(asked: Asked): KubeFaultKind | undefined {
    if (asked.isWatch) return undefined;
    const index = this.#faults.findIndex(({ fault }) => fits(fault, asked));
    const found = this.#faults[index];
    if (!found) return undefined;
    found.left -= 1;
    if (found.left === 0) this.#faults.splice(index, 1);
    this.#onStrike(`kube:${found.fault.kind}`);
    return found.fault.kind;
  }

  #forward(request: IncomingMessage, response: ServerResponse, asked: Asked, fault?: KubeFaultKind): void {
    const { hostname, port } = this.#target;
    const headers = { ...request.headers, host: this.#target.host };
    const onward: ClientRequest = this.#request(
      { hostname, port, method: request.method, path: request.url, headers, agent: this.#agent },
      (answer) => {
        if (fault === "lost-reply") {
          answer.resume();
          answer.on("end", () => request.socket.resetAndDestroy());
        } else if (fault === "late") {
          setTimeout(() => passOn(answer, response), SLOW_MS).unref();
        } else {
          if (asked.isWatch) this.#watches.add(response);
          passOn(answer, response);
        }
      },
    );
    onward.on("upgrade", (answer, far, first) => {
      if (fault === "lost-reply") {
        far.destroy();
        request.socket.resetAndDestroy();
      } else if (fault === "late") {
        setTimeout(() => this.#join(request.socket, answer, far, first), SLOW_MS).unref();
      } else {
        this.#join(request.socket, answer, far, first);
      }
    });
    onward.on("error", () => request.socket.resetAndDestroy());
    response.on("close", () => {
      this.#watches.delete(response);
      if (!response.writableEnded && fault !== "lost-reply") onward.destroy();
    });
    request.pipe(onward);
  }

  /** Passes a stream's bytes on in both directions, after the server's answer and the first bytes behind it. */
  #join(near: Socket, answer: IncomingMessage, far: Duplex, first: Buffer): void {
    const lines = [`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}`];
    for (let at = 0; at < answer.rawHeaders.length; at += 2) {
      lines.push(`${answer.rawHeaders[at]}: ${answer.rawHeaders[at + 1]}`);
    }
    near.write(`${lines.join("\r\n")}\r\n\r\n`);
    near.write(first);
    this.#streams.add(near);
    near.on("close", () => {
      this.#streams.delete(near);
      far.destroy();
    });
    far.on("error", () => near.resetAndDestroy());
    far.on("close", () => near.destroy());
    near.pipe(far).pipe(near);
  }
}

function passOn(answer: IncomingMessage, response: ServerResponse): void {
  if (response.destroyed) {
    answer.destroy();
    return;
  }
  response.writeHead(answer.statusCode ?? 502, answer.headers);
  // Send a watch's header at once: it tells the client that the watch is open.
  response.flushHeaders();
  answer.on("error", () => response.destroy());
  answer.pipe(response);
}

function refuseWith(
  response: ServerResponse,
  { code, ...words }: { code: number; reason: string; message: string },
): void {
  const status = { kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", ...words, code };
  response.writeHead(code, { "content-type": "application/json" });
  response.end(JSON.stringify(status));
}

/** Only a request that names an object's version or content can conflict; a creation can't. */
function fits({ kind, method, plural }: KubeFault, asked: Asked): boolean {
  if (kind === "conflict" && (asked.method === "GET" || asked.method === "POST")) return false;
  return (method ?? asked.method) === asked.method && (plural ?? asked.plural) === asked.plural;
}

function askedOf({ method = "GET", url = "" }: IncomingMessage): Asked {
  const { pathname, searchParams } = new URL(url, "http://localhost");
  // /api/v1 or /apis/GROUP/VERSION, then perhaps namespaces/NAME, then the resource.
  const parts = pathname.split("/").slice(pathname.startsWith("/apis/") ? 4 : 3);
  const plural = (parts[0] === "namespaces" && parts.length > 2 ? parts[2] : parts[0]) ?? "";
  return { method, plural, isWatch: ["1", "true"].includes(searchParams.get("watch") ?? "") };
}
