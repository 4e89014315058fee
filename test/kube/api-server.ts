/** A fake API server over HTTP, with a store of objects, watches and scripted faults. */
import { createServer, type IncomingMessage, type Server, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { ClusterAccess } from "../../src/kube/config.ts";
import type { KubeObject } from "../../src/kube/objects.ts";
import { type Handshake, ServerWebSocket } from "./server-web-socket.ts";

/** One request that the server received. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  readonly body: unknown;
  /** Number of its TCP connection. */
  readonly connection: number;
}

/** Answers a request instead of the store; returns true if it did. */
export type Script = (seen: SeenRequest, response: ServerResponse, socket: Socket) => boolean | undefined;

interface Change {
  readonly rv: number;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: KubeObject;
}

interface OpenWatch {
  readonly collection: string;
  readonly labelSelector: string | null;
  readonly response: ServerResponse;
  readonly socket: Socket;
}

/**
 * A strict local fake of an API server over plain HTTP. It has one store of raw objects with resourceVersions, paged
 * lists, watches from a resourceVersion, and preconditions. Tests script faults: dropped connections, 410, pages of
 * proxies.
 */
export class FakeApiServer {
  readonly requests: SeenRequest[] = [];
  /** Called in order for each request, before the store. */
  readonly scripts: Script[] = [];
  /** Accepted attach requests, in order. */
  readonly attached: ServerWebSocket[] = [];
  /** What the server answers to an attach request that no script answered. */
  handshake: Handshake = {};
  readonly #tls: { cert: string; key: string } | undefined;
  readonly #server: Server;
  readonly #objects = new Map<string, KubeObject>();
  readonly #watches = new Set<OpenWatch>();
  readonly #sockets = new Map<Socket, number>();
  readonly #snapshots = new Map<string, { rv: number; items: KubeObject[] }>();
  #changes: Change[] = [];
  #compacted = 0;
  #rv = 100;
  #connections = 0;
  #waiters: (() => void)[] = [];

  private constructor(tls: { cert: string; key: string } | undefined) {
    this.#tls = tls;
    const receive = (request: IncomingMessage, response: ServerResponse) => this.#receive(request, response);
    this.#server = tls ? createTlsServer(tls, receive) : createServer(receive);
    this.#server.on("upgrade", (request, socket: Socket) => this.#attach(request, socket));
    this.#server.on("connection", (socket) => {
      this.#connections += 1;
      this.#sockets.set(socket, this.#connections);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {});
    });
  }

  /** @param tls a self-signed certificate for 127.0.0.1; plain HTTP without one */
  static async start(tls?: { cert: string; key: string }): Promise<FakeApiServer> {
    const fake = new FakeApiServer(tls);
    await new Promise<void>((resolve) => fake.#server.listen(0, "127.0.0.1", resolve));
    return fake;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get access(): ClusterAccess {
    const address = `127.0.0.1:${this.port}`;
    const rest = { auth: { token: "test-token" }, currentNamespace: "default" };
    if (!this.#tls) return { server: `http://${address}`, ...rest };
    return { server: `https://${address}`, ca: this.#tls.cert, ...rest };
  }

  /** TCP connections accepted so far. */
  get connections(): number {
    return this.#connections;
  }

  get openConnections(): number {
    return this.#sockets.size;
  }

  get openWatches(): number {
    return this.#watches.size;
  }

  get resourceVersion(): string {
    return String(this.#rv);
  }

  /** Resolves when `condition` holds. It is checked after every request and every end of a watch. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }

  /** Creates or changes the object at `path`, as another client would. Watches report it unless it is `hidden`. */
  put(path: string, object: KubeObject, options: { hidden?: boolean } = {}): KubeObject {
    const known = this.#objects.get(path);
    const next = structuredClone(object);
    const uid = known?.metadata.uid;
    if (uid !== undefined) next.metadata.uid ??= uid;
    return this.#store(path, known ? "MODIFIED" : "ADDED", next, options.hidden);
  }

  /** Removes an object. With `hidden`, no watch reports it, as when events are lost. */
  remove(path: string, options: { hidden?: boolean } = {}): void {
    const known = this.#objects.get(path);
    if (known) this.#store(path, "DELETED", structuredClone(known), options.hidden);
  }

  read(path: string): KubeObject | undefined {
    return this.#objects.get(path);
  }

  /** Deletes the history: watches from an earlier version get a 410. */
  compact(): void {
    this.#compacted = this.#rv;
    this.#changes = [];
    this.#snapshots.clear();
  }

  /** As etcd after a restore from a backup: its versions continue from an earlier one, and watches stay open. */
  rewind(version: string): void {
    this.#rv = Number(version);
    this.compact();
  }

  /** Writes raw bytes into every open watch. */
  writeToWatches(bytes: string | Uint8Array): void {
    for (const { response } of this.#watches) response.write(bytes);
  }

  sendBookmarks(): void {
    const object = { kind: "Bookmark", metadata: { resourceVersion: this.resourceVersion } };
    this.writeToWatches(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
  }

  /** Writes an ERROR event into every open watch. */
  sendError(code: number, reason: string): void {
    const object = { kind: "Status", status: "Failure", message: "by the test", reason, code };
    this.writeToWatches(`${JSON.stringify({ type: "ERROR", object })}\n`);
  }

  sendGone(): void {
    this.sendError(410, "Expired");
  }

  /** Ends watches as the server does after their timeout. */
  endWatches(): void {
    for (const { response } of this.#watches) response.end();
  }

  /** Closes every connection abruptly. */
  cut(): void {
    for (const socket of this.#sockets.keys()) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #store(path: string, type: Change["type"], object: KubeObject, hidden = false): KubeObject {
    this.#rv += 1;
    const { name } = splitPath(path);
    object.metadata = { ...object.metadata, name: name ?? "", resourceVersion: String(this.#rv) };
    object.metadata.uid ??= `uid-${this.#rv}`;
    if (type === "DELETED") this.#objects.delete(path);
    else this.#objects.set(path, object);
    if (hidden) return object;
    const change: Change = { rv: this.#rv, type, object };
    this.#changes.push(change);
    for (const watch of this.#watches) {
      if (belongs(object, path, watch)) watch.response.write(`${JSON.stringify({ type, object })}\n`);
    }
    return object;
  }

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return;
    }
    const seen = this.#see(request, Buffer.concat(chunks).toString("utf8"));
    if (!this.#isScripted(seen, response, request.socket)) this.#answer(seen, response, request.socket);
    this.#wake();
  }

  #attach(request: IncomingMessage, socket: Socket): void {
    const seen = this.#see(request, "");
    const refusal = new ServerResponse(request);
    refusal.assignSocket(socket);
    refusal.shouldKeepAlive = false;
    refusal.on("finish", () => socket.end());
    if (!this.#isScripted(seen, refusal, socket)) {
      refusal.detachSocket(socket);
      this.attached.push(new ServerWebSocket(request, socket, () => this.#wake(), this.handshake));
    }
    this.#wake();
  }

  #see(request: IncomingMessage, text: string): SeenRequest {
    const url = new URL(request.url ?? "/", "http://fake");
    const seen: SeenRequest = {
      method: request.method ?? "",
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body: text === "" ? undefined : JSON.parse(text),
      connection: this.#sockets.get(request.socket) ?? 0,
    };
    this.requests.push(seen);
    return seen;
  }

  #isScripted(seen: SeenRequest, response: ServerResponse, socket: Socket): boolean {
    return this.scripts.some((script) => script(seen, response, socket));
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  #answer(seen: SeenRequest, response: ServerResponse, socket: Socket): unknown {
    const { name } = splitPath(seen.path);
    if (seen.method === "GET" && seen.query.get("watch") === "true") return this.#watch(seen, response, socket);
    if (seen.method === "GET" && name === undefined) return this.#list(seen, response);
    if (seen.method === "POST") return this.#create(seen, response);
    const object = this.#objects.get(seen.path);
    if (!object)
      return sendStatus(response, 404, "NotFound", `"${name}" not found`, { details: { name, kind: "things" } });
    if (seen.method === "GET") return send(response, 200, object);
    const wanted = preconditionOf(seen);
    if (wanted.rv !== undefined && wanted.rv !== object.metadata.resourceVersion) {
      return sendStatus(response, 409, "Conflict", "the object has been modified");
    }
    if (wanted.uid !== undefined && wanted.uid !== object.metadata.uid) {
      return sendStatus(response, 409, "Conflict", "the UID in the precondition does not match");
    }
    if (seen.method === "DELETE") {
      send(response, 200, this.#store(seen.path, "DELETED", structuredClone(object)));
    } else if (seen.method === "PUT") {
      send(response, 200, this.#store(seen.path, "MODIFIED", seen.body as KubeObject));
    } else if (seen.method === "PATCH" && seen.headers["content-type"] === "application/merge-patch+json") {
      send(response, 200, this.#store(seen.path, "MODIFIED", mergePatch(object, seen.body) as KubeObject));
    } else {
      sendStatus(response, 415, "UnsupportedMediaType", "not known to this double");
    }
  }

  #create(seen: SeenRequest, response: ServerResponse): unknown {
    const object = seen.body as KubeObject;
    const name = object.metadata.name ?? `${object.metadata.generateName}${this.#rv}`;
    const path = `${seen.path}/${name}`;
    if (this.#objects.has(path)) return sendStatus(response, 409, "AlreadyExists", `"${name}" already exists`);
    if (seen.query.get("dryRun") === "All") return send(response, 201, object);
    send(response, 201, this.#store(path, "ADDED", { ...object, metadata: { ...object.metadata, name } }));
  }

  #list(seen: SeenRequest, response: ServerResponse): unknown {
    const limit = Number(seen.query.get("limit") ?? 0);
    const token = seen.query.get("continue");
    let snapshot = { rv: this.#rv, items: this.#matching(seen) };
    let offset = 0;
    if (token) {
      const [id = "", at] = token.split(":");
      const known = this.#snapshots.get(id);
      if (!known) return sendStatus(response, 410, "Expired", "The provided continue parameter is too old");
      snapshot = known;
      offset = Number(at);
    }
    const end = limit > 0 ? offset + limit : snapshot.items.length;
    const more = end < snapshot.items.length;
    const id = token?.split(":")[0] ?? `snapshot-${this.#snapshots.size}`;
    if (more) this.#snapshots.set(id, snapshot);
    send(response, 200, {
      kind: "List",
      apiVersion: "v1",
      metadata: { resourceVersion: String(snapshot.rv), ...(more ? { continue: `${id}:${end}` } : {}) },
      // Like the real server, without kind and apiVersion.
      items: snapshot.items.slice(offset, end).map(({ kind: _kind, apiVersion: _version, ...rest }) => rest),
    });
  }

  #matching(seen: SeenRequest): KubeObject[] {
    const filter = { collection: seen.path, labelSelector: seen.query.get("labelSelector") };
    return [...this.#objects].filter(([path, object]) => belongs(object, path, filter)).map(([, object]) => object);
  }

  #watch(seen: SeenRequest, response: ServerResponse, socket: Socket): unknown {
    const since = Number(seen.query.get("resourceVersion"));
    response.writeHead(200, { "content-type": "application/json" });
    response.flushHeaders();
    const watch: OpenWatch = {
      collection: seen.path,
      labelSelector: seen.query.get("labelSelector"),
      response,
      socket,
    };
    this.#watches.add(watch);
    response.on("close", () => {
      this.#watches.delete(watch);
      this.#wake();
    });
    if (since < this.#compacted) {
      this.sendGone();
      response.end();
      return;
    }
    for (const { rv, type, object } of this.#changes) {
      const path = `${seen.path}/${object.metadata.name}`;
      if (rv > since && belongs(object, path, watch)) response.write(`${JSON.stringify({ type, object })}\n`);
    }
  }
}

/** Splits `/api/v1/namespaces/a/pods/x` into the collection `/api/v1/namespaces/a/pods` and the name `x`. */
function splitPath(path: string): { collection: string; name: string | undefined } {
  const segments = path.split("/").filter((segment) => segment !== "");
  const base = segments[0] === "api" ? 2 : 3;
  const rest = segments.slice(base);
  const namespaced = rest[0] === "namespaces" && rest.length > 2;
  const at = namespaced ? base + 3 : base + 1;
  return { collection: `/${segments.slice(0, at).join("/")}`, name: segments[at] };
}

function belongs(
  object: KubeObject,
  path: string,
  { collection, labelSelector }: { collection: string; labelSelector: string | null },
): boolean {
  if (splitPath(path).collection !== collection) return false;
  if (!labelSelector) return true;
  return labelSelector.split(",").every((term) => {
    const [key = "", value] = term.split("=");
    return value === undefined ? object.metadata.labels?.[key] !== undefined : object.metadata.labels?.[key] === value;
  });
}

function preconditionOf({ method, body }: SeenRequest): { rv: string | undefined; uid: string | undefined } {
  const fields = body as {
    metadata?: KubeObject["metadata"];
    preconditions?: { uid?: string; resourceVersion?: string };
  };
  if (method === "DELETE") return { rv: fields?.preconditions?.resourceVersion, uid: fields?.preconditions?.uid };
  return { rv: fields?.metadata?.resourceVersion, uid: fields?.metadata?.uid };
}

function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> =
    typeof target === "object" && target !== null ? { ...(target as Record<string, unknown>) } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = mergePatch(result[key], value);
  }
  return result;
}

export function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

export function sendStatus(
  response: ServerResponse,
  status: number,
  reason: string,
  message: string,
  options: { details?: unknown; headers?: Record<string, string> } = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...options.headers });
  const { details } = options;
  response.end(
    JSON.stringify({ kind: "Status", apiVersion: "v1", status: "Failure", message, reason, code: status, details }),
  );
}
