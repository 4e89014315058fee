import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { selfSigned } from "../cluster/certificate.ts";
import { KUBELET_CLIENT } from "../cluster/users.ts";
import type { ContainerStreams } from "./container-streams.ts";
import { NORMAL_CLOSURE, offeredProtocols, WebSocketConnection } from "./web-socket.ts";

/** A container that was started. */
export interface ServedContainer {
  readonly isRunning: boolean;
  readonly ended: Promise<void>;
  /** Undefined if it never prints anything and reads nothing. */
  readonly streams: ContainerStreams | undefined;
}

/** A Pod of the node, as its kubelet serves it. */
export interface ServedPod {
  readonly pod: Pod;
  /** The last started container of this name. */
  container(name: string): ServedContainer | undefined;
}

/** What goes wrong when a client attaches to a container. */
export type AttachFault =
  /** The node refuses it. By default, it's a node without debugging handlers. */
  | { readonly kind: "refused"; readonly status?: number; readonly message?: string }
  /** Nothing that the client writes arrives. */
  | { readonly kind: "input-lost" }
  /** Nothing that the container prints arrives. */
  | { readonly kind: "output-lost" }
  /**
   * The connection fails when this number of bytes has arrived at the container. If it's silent, it stays open, but
   * nothing passes any more.
   */
  | { readonly kind: "cut"; readonly afterBytes: number; readonly silent?: boolean };

/** Chooses faults in code. `attempt` counts the clients that wanted to attach to the container, from 1. */
export type AttachFaultChooser = (pod: Pod, container: string, attempt: number) => AttachFault | undefined;

export interface KubeletServerOptions {
  readonly find: (ref: { namespace: string; name: string }) => ServedPod | undefined;
  readonly faults?: AttachFaultChooser | undefined;
}

/** The only subprotocol here. The API server passes it through; it translates v5 to SPDY, which isn't spoken here. */
const PROTOCOL = "v4.channel.k8s.io";

/** The first byte of each message. */
const STDIN = 0;
const STDOUT = 1;
const ERROR = 3;

const ANY_TYPE = "*/*";
const NOT_ACCEPTABLE = "406: Not Acceptable\n\nAvailable representations: ";

/** The address of every simulated node. */
const HOST = "127.0.0.1";

/** A request that is refused. The kubelet answers with plain text, which the API server passes on. */
class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** One path of the kubelet's API below its first part: /attach/<namespace>/<pod>/<container>. */
interface Target {
  readonly served: ServedPod;
  readonly spec: Container;
  readonly query: URLSearchParams;
}

/**
 * The part of the kubelet's HTTPS API that the API server proxies for `pods/attach` and `pods/log`. Only the API server
 * gets answers, because an attached client can start programs on this machine.
 */
export class KubeletServer {
  readonly #options: KubeletServerOptions;
  /** The number of attempts to attach, by uid of the Pod and name of the container. */
  readonly #attempts = new Map<string, number>();
  readonly #sockets = new Set<Socket>();
  readonly #attached = new Set<WebSocketConnection>();
  #server: Server | undefined;
  #silent = false;

  constructor(options: KubeletServerOptions) {
    this.#options = options;
  }

  /** The port, or undefined while nothing listens. */
  get port(): number | undefined {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port;
  }

  /** @param clientCa the certificate authority of the API server's own certificate, PEM */
  async listen(clientCa: string): Promise<void> {
    const { certificate: cert, key } = selfSigned([HOST]);
    const server = createServer({ cert, key, ca: clientCa, requestCert: true, rejectUnauthorized: true });
    this.#server = server;
    server.on("secureConnection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("request", (request, response) => void this.#answer(request, response));
    server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, HOST, resolve);
    });
    server.unref();
  }

  /** The node can't be reached: connections stay open, and nothing is answered. */
  fallSilent(): void {
    this.#silent = true;
    for (const connection of this.#attached) connection.fallSilent();
  }

  /** The node can be reached again. The old connections are broken. */
  recover(): void {
    this.#silent = false;
    this.#breakConnections();
  }

  async close(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    const closed = new Promise((resolve) => void server.close(resolve));
    this.#breakConnections();
    await closed;
  }

  #breakConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (this.#silent) return;
    try {
      const log = await this.#log(this.#target(request, "containerLogs"));
      response.writeHead(200, { "content-type": "text/plain" }).end(log);
    } catch (error) {
      const { status, message } = refusalOf(error);
      response.writeHead(status, { "content-type": "text/plain" }).end(message);
    }
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => {});
    if (this.#silent) return;
    try {
      this.#attach(this.#target(request, "attach"), { request, socket, head });
    } catch (error) {
      const { status, message } = refusalOf(error);
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(message)}\r\n` +
          `Connection: close\r\n\r\n${message}`,
      );
    }
  }

  /** @throws Refusal */
  #target(request: IncomingMessage, wanted: string): Target {
    const { CN } = (request.socket as TLSSocket).getPeerCertificate().subject ?? {};
    if (CN !== KUBELET_CLIENT) throw new Refusal(403, "Forbidden");
    const { pathname, searchParams } = new URL(request.url ?? "", `https://${HOST}`);
    const [, action, namespace = "", name = "", container = ""] = pathname.split("/").map(decodeURIComponent);
    if (action !== wanted) throw new Refusal(404, "404 page not found");
    const served = this.#options.find({ namespace, name });
    if (!served) throw new Refusal(404, `pod "${name}" does not exist`);
    const { initContainers = [], containers, ephemeralContainers = [] } = served.pod.spec;
    const spec = [...initContainers, ...containers, ...ephemeralContainers].find((each) => each.name === container);
    if (!spec) throw new Refusal(404, `container "${container}" not found in pod "${name}"`);
    return { served, spec, query: searchParams };
  }

  #nextFault(pod: Pod, container: string): AttachFault | undefined {
    const key = `${pod.metadata.uid}/${container}`;
    const attempt = (this.#attempts.get(key) ?? 0) + 1;
    this.#attempts.set(key, attempt);
    return this.#options.faults?.(pod, container, attempt);
  }

  /** The kubelet's order: the last lines first, then the first bytes of them. */
  async #log({ served, spec, query }: Target): Promise<Buffer> {
    const container = served.container(spec.name);
    if (!container) {
      const { name } = served.pod.metadata;
      throw new Refusal(400, `container "${spec.name}" in pod "${name}" is waiting to start`);
    }
    const log = (await container.streams?.log()) ?? Buffer.alloc(0);
    const tailed = query.has("tailLines") ? lastLines(log, Number(query.get("tailLines"))) : log;
    return query.has("limitBytes") ? tailed.subarray(0, Number(query.get("limitBytes"))) : tailed;
  }

  #attach(
    { served, spec, query }: Target,
    { request, socket, head }: { request: IncomingMessage; socket: Duplex; head: Buffer },
  ): void {
    // The kubelet offers no particular type for this path. The API server passes the client's header on.
    if (!(request.headers.accept ?? ANY_TYPE).includes(ANY_TYPE)) throw new Refusal(406, NOT_ACCEPTABLE);
    const fault = this.#nextFault(served.pod, spec.name);
    if (fault?.kind === "refused") throw new Refusal(fault.status ?? 405, fault.message ?? DEBUGGING_IS_OFF);
    const container = served.container(spec.name);
    if (!container) throw new Refusal(500, `container ${spec.name} not found in pod ${served.pod.metadata.name}`);
    if (!container.isRunning) throw new Refusal(500, "container is in CONTAINER_EXITED state");
    const [stdin, stdout, stderr] = ["input", "output", "error"].map((name) => query.get(name) === "1");
    if (!stdin && !stdout && !stderr) throw new Refusal(400, "you must specify at least 1 of stdin, stdout, stderr");
    const protocols = offeredProtocols(request);
    if (!protocols) throw new Refusal(400, "unable to upgrade: missing upgrade headers in request");
    if (!protocols.includes(PROTOCOL)) {
      throw new Refusal(403, `requested protocol(s) are not supported: [${protocols.join(" ")}]; supports ${PROTOCOL}`);
    }
    const connection = new WebSocketConnection(request, socket, head, PROTOCOL);
    this.#attached.add(connection);
    // An empty message tells the client that it is attached.
    connection.send(Buffer.of(stdout ? STDOUT : ERROR));
    const { streams } = container;
    const isHeard = stdout && fault?.kind !== "output-lost";
    const print = (bytes: Buffer) => connection.send(Buffer.concat([Buffer.of(STDOUT), bytes]));
    const unfollow = isHeard ? streams?.follow(print) : undefined;
    const isRead = stdin && spec["stdin"] === true;
    const write = (bytes: Buffer) => {
      if (isRead && fault?.kind !== "input-lost") streams?.write(bytes);
    };
    const pass = fault?.kind === "cut" ? cutting(fault, connection, write) : write;
    connection.onMessage = (message) => {
      if (message[0] === STDIN) pass(message.subarray(1));
    };
    connection.onEnd = () => {
      this.#attached.delete(connection);
      unfollow?.();
      if (isRead && spec["stdinOnce"] === true) streams?.closeInput();
    };
    void container.ended.then(() => {
      connection.send(Buffer.concat([Buffer.of(ERROR), Buffer.from(SUCCESS)]));
      connection.close(NORMAL_CLOSURE);
    });
  }
}

/** Passes bytes on until the fault's number has passed. Then the connection fails. */
function cutting(
  { afterBytes, silent = false }: Extract<AttachFault, { kind: "cut" }>,
  connection: WebSocketConnection,
  write: (bytes: Buffer) => void,
): (bytes: Buffer) => void {
  let left = afterBytes;
  const cut = () => (silent ? connection.fallSilent() : connection.destroy());
  if (left === 0) cut();
  return (bytes) => {
    write(bytes.subarray(0, left));
    left -= Math.min(left, bytes.length);
    if (left === 0) cut();
  };
}

/** The kubelet's answer with `enableDebuggingHandlers: false`. */
const DEBUGGING_IS_OFF = "Debug endpoints are disabled.";

/** What an attached client is told when the container has ended. */
const SUCCESS = JSON.stringify({ metadata: {}, status: "Success" });

function refusalOf(error: unknown): { status: number; message: string } {
  if (error instanceof Refusal) return error;
  return { status: 500, message: error instanceof Error ? error.message : String(error) };
}

function lastLines(log: Buffer, count: number): Buffer {
  const lines = log.toString("latin1").split(/(?<=\n)/);
  return Buffer.from(lines.slice(Math.max(0, lines.length - count)).join(""), "latin1");
}
