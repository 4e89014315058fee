import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type ApiRequest, CREDENTIALS, type Route, routeOf } from "./api-request.ts";
import { actorOf, type Caller, type Credential } from "./caller.ts";
import { ApiError, forbidden, notFound, unauthenticated } from "./errors.ts";
import { type Fault, withWrongTypes } from "./faults.ts";
import { json, type Reply, readJson, stamp, write, writeText } from "./http.ts";
import { RateLimit } from "./rate-limit.ts";
import { SESSIONS_API, type SessionsApiContext } from "./sessions-api.ts";
import type { ViolationKind } from "./violations.ts";
import { WORK_API, type WorkApiContext } from "./work-api.ts";
import type { World } from "./world.ts";

/** The beta that the platform asks for on all these calls. */
const REQUIRED_BETA = "managed-agents-2026-04-01";
/** A body without end is written in pieces of this size. */
const ENDLESS_CHUNK = " ".repeat(16 * 1024);

/** Handles requests under /admin/; undefined: no such path. */
export type AdminHandler = (request: IncomingMessage, path: string) => Promise<Reply | undefined>;

/** The HTTP side: reads, matches, authenticates, applies faults, and answers. */
export class ApiServer {
  readonly #world: World;
  readonly #admin: AdminHandler;
  readonly #server: Server;
  readonly #workApi: Pick<WorkApiContext, "secretFor">;
  readonly #reads: RateLimit | undefined;
  readonly #creates: RateLimit | undefined;

  constructor(world: World, admin: AdminHandler) {
    this.#world = world;
    this.#admin = admin;
    this.#workApi = { secretFor: (found) => world.secretFor(found) };
    const { readsPerMinute, createsPerMinute } = world.limits;
    this.#reads = readsPerMinute === null ? undefined : new RateLimit(readsPerMinute, world.clock.now());
    this.#creates = createsPerMinute === null ? undefined : new RateLimit(createsPerMinute, world.clock.now());
    this.#server = createServer((request, response) => void this.#serve(request, response));
    // Leases are long and workers few: an idle connection may stay.
    this.#server.keepAliveTimeout = 60_000;
  }

  listen(port: number, host: string): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, host, () => resolve(this.#server.address() as AddressInfo));
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const world = this.#world;
    const at = world.clock.now();
    const method = request.method ?? "GET";
    const url = new URL(request.url ?? "/", "http://simulator");
    const route = routeOf(method, url.pathname);
    const admin = url.pathname.startsWith("/admin/");
    response.once("close", () => {
      if (admin) return;
      const status = response.writableFinished || route?.call === "events-stream" ? response.statusCode : 0;
      world.countRequest({ at, method, path: url.pathname, call: route?.call, status, ms: world.clock.now() - at });
    });
    response.on("error", () => undefined);
    stamp(response, at);
    try {
      if (admin) write(response, (await this.#admin(request, url.pathname)) ?? json(404, notFound(url.pathname).body));
      else await this.#api(request, response, url, route);
    } catch (error) {
      fail(response, error);
    }
  }

  async #api(request: IncomingMessage, response: ServerResponse, url: URL, route: Route | undefined): Promise<void> {
    const world = this.#world;
    const signal = goneSignal(response);
    const unread = await readJson(request).then(
      (body) => ({ body }),
      (error: unknown) => ({ error }),
    );
    world.deadlines.runDue();
    const early = route && world.faults.strike("before", route, (fault) => this.#fitsBefore(fault, route));
    if (early && !(await this.#before(early, response))) return;
    world.deadlines.runDue();
    stamp(response, world.clock.now());
    const caller = this.#authenticate(request, early?.kind === "latency");
    this.#checkRequest(request, caller, route, url);
    if (!route) return;
    if ("error" in unread) throw this.#violation("invalid-request", unread.error, caller, route);
    const { body } = unread;
    const duplicateOffer = early?.kind === "duplicate-offer";
    const { searchParams: query } = url;
    const call = { ...route, query, headers: request.headers, body, caller, duplicateOffer, signal };
    const reply = await this.#dispatch(call).catch(replyOf);
    // An empty poll is nothing to lose.
    const late = world.faults.strike("after", route, () => route.call !== "poll" || reply.body !== null);
    if (late) await this.#after(late, reply, response);
    else write(response, reply);
  }

  #fitsBefore(fault: Fault, route: Route): boolean {
    if (fault.kind !== "duplicate-offer") return true;
    return this.#world.environments.get(route.environmentId ?? "")?.hasOffered ?? false;
  }

  // --- who and what ---------------------------------------------------------------------------------------------

  /** @throws {ApiError} 401 */
  #authenticate(request: IncomingMessage, delayed: boolean): Caller {
    const { authorization, "x-api-key": apiKey, "anthropic-worker-id": workerId } = request.headers;
    let credential: Credential | undefined;
    if (authorization?.startsWith("Bearer ")) credential = this.#world.bearer(authorization.slice("Bearer ".length));
    else if (apiKey === this.#world.apiKey) credential = { kind: "api-key" };
    if (!credential) throw unauthenticated();
    return {
      credential,
      workerId: typeof workerId === "string" && workerId !== "" ? workerId : undefined,
      userAgent: request.headers["user-agent"] ?? "",
      remote: request.socket.remoteAddress ?? "",
      delayed,
    };
  }

  /** Headers, path, rate, and whether the credential fits. @throws {ApiError} */
  #checkRequest(request: IncomingMessage, caller: Caller, route: Route | undefined, url: URL): void {
    const betas = String(request.headers["anthropic-beta"] ?? "").split(",");
    if (!betas.some((beta) => beta.trim() === REQUIRED_BETA)) {
      throw this.#violation("missing-header", `the header anthropic-beta must hold ${REQUIRED_BETA}`, caller, route);
    }
    if (!request.headers["anthropic-version"]) {
      throw this.#violation("missing-header", "the header anthropic-version is missing", caller, route);
    }
    if (!route) {
      this.#world.record({ kind: "unknown-path", details: `${request.method} ${url.pathname}` }, actorOf(caller));
      throw notFound(`${request.method} ${url.pathname}`);
    }
    const limit = request.method === "GET" ? this.#reads : this.#creates;
    const waitSeconds = limit?.take(this.#world.clock.now()) ?? 0;
    if (waitSeconds > 0) throw new RateLimited(waitSeconds);
    this.#authorize(caller, route, request);
  }

  #authorize(caller: Caller, route: Route, request: IncomingMessage): void {
    const { credential } = caller;
    if (!CREDENTIALS[route.call].includes(credential.kind)) {
      const details = `${route.call} does not take a credential of this kind (${credential.kind})`;
      this.#world.record({ kind: "wrong-credential", details }, actorOf(caller), aboutOf(route));
      throw forbidden(details);
    }
    const foreign =
      (credential.kind === "sessions-token" && route.workId !== undefined && credential.workId !== route.workId) ||
      (credential.kind === "sessions-token" &&
        route.sessionId !== undefined &&
        credential.sessionId !== route.sessionId);
    if (foreign) throw forbidden("the sessions token is for another work item");
    const environmentId = route.environmentId ?? this.#world.sessions.get(route.sessionId ?? "")?.environmentId;
    if (environmentId === undefined) return;
    const environment = this.#world.environment(environmentId);
    if (credential.kind === "environment-key" && credential.environmentId !== environmentId) {
      throw forbidden("the environment key is for another environment");
    }
    const workspace = request.headers["anthropic-workspace-id"];
    if (workspace !== undefined && environment.workspaceId !== undefined && workspace !== environment.workspaceId) {
      throw forbidden("anthropic-workspace-id does not match the environment's workspace");
    }
    environment.sides.heard(caller.workerId);
  }

  async #dispatch(request: ApiRequest): Promise<Reply> {
    const { call, caller } = request;
    const violation = (kind: ViolationKind) => (details: string) => this.#violation(kind, details, caller, request);
    const session = SESSIONS_API[call];
    try {
      if (session) return session(this.#liveSession(request.sessionId), request, this.#sessionsContext(violation));
      const handler = WORK_API[call];
      if (!handler) throw notFound(call);
      const { switches, limits } = this.#world;
      const context = { ...this.#workApi, switches, limits, badPoll: violation("invalid-poll") };
      return await handler(this.#world.environment(request.environmentId ?? ""), request, context);
    } catch (error) {
      // Whatever is malformed is counted, once: polls and results have kinds of their own.
      if (error instanceof ApiError && error.status === 400 && !(error instanceof CountedError)) {
        throw violation("invalid-request")(error.message);
      }
      throw error;
    }
  }

  #sessionsContext(violation: (kind: ViolationKind) => (details: string) => ApiError): SessionsApiContext {
    const { deadlines } = this.#world;
    return {
      deadlines,
      unknownResult: violation("unknown-tool-result"),
      woken: (session) => this.#world.woken(session),
    };
  }

  #liveSession(sessionId: string | undefined) {
    const session = this.#world.session(sessionId ?? "");
    if (session.deleted) throw notFound(`session ${session.id}`);
    return session;
  }

  /** Records a violation and makes the error to answer it with. */
  #violation(kind: ViolationKind, reason: unknown, caller: Caller, route: Route | undefined): ApiError {
    const details = reason instanceof Error ? reason.message : String(reason);
    this.#world.record({ kind, details }, actorOf(caller), route && aboutOf(route));
    return new CountedError(details);
  }

  // --- faults ---------------------------------------------------------------------------------------------------

  /** What a fault does before the request has any effect. @returns false when the request ends here. */
  async #before(fault: Fault, response: ServerResponse): Promise<boolean> {
    switch (fault.kind) {
      case "latency":
        await this.#pass(fault.ms);
        return true;
      case "hang":
        return false;
      case "reset":
        response.socket?.resetAndDestroy();
        return false;
      case "status": {
        if (fault.retryAfterSeconds !== undefined) response.setHeader("retry-after", String(fault.retryAfterSeconds));
        write(response, json(fault.status, statusError(fault.status).body));
        return false;
      }
      case "html":
        writeText(response, fault.status, "text/html", "<html><body><h1>Bad Gateway</h1></body></html>");
        return false;
      default:
        return true;
    }
  }

  /** What a fault does to the reply of a request that took effect. */
  async #after(fault: Fault, reply: Reply, response: ServerResponse): Promise<void> {
    switch (fault.kind) {
      case "lost-reply":
        response.socket?.resetAndDestroy();
        return;
      case "hang":
        return;
      case "truncated": {
        const text = JSON.stringify(reply.body ?? { type: "work" });
        return writeText(response, reply.status, "application/json", text.slice(0, Math.ceil(text.length / 2)));
      }
      case "wrong-types":
        return write(response, json(reply.status === 204 ? 200 : reply.status, withWrongTypes(reply.body ?? null)));
      case "endless":
        return endless(response);
      case "latency":
        await this.#pass(fault.ms);
        return write(response, reply);
      default:
        return write(response, reply);
    }
  }

  #pass(ms: number): Promise<void> {
    return new Promise((resolve) => this.#world.deadlines.after(ms, resolve));
  }
}

/** A 400 that was recorded as a violation already. */
class CountedError extends ApiError {
  constructor(message: string) {
    super(400, "invalid_request_error", message);
  }
}

/** 429, by the simulator's own rate limit. */
class RateLimited extends ApiError {
  readonly retryAfterSeconds: number;
  constructor(retryAfterSeconds: number) {
    super(429, "rate_limit_error", "too many requests");
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

const HTTP_TOO_MANY = 429;
const HTTP_OVERLOADED = 529;

function statusError(status: number): ApiError {
  if (status === HTTP_TOO_MANY) return new ApiError(status, "rate_limit_error", "a fault on demand: too many requests");
  if (status === HTTP_OVERLOADED) return new ApiError(status, "overloaded_error", "a fault on demand: overloaded");
  return new ApiError(status, status >= 500 ? "api_error" : "invalid_request_error", "a fault on demand");
}

function aboutOf({ environmentId, workId, sessionId }: Route) {
  return {
    ...(environmentId !== undefined && { environmentId }),
    ...(workId !== undefined && { workId }),
    ...(sessionId !== undefined && { sessionId }),
  };
}

/** The reply to a refused call. @throws what is no error of the API. */
function replyOf(error: unknown): Reply {
  if (error instanceof ApiError) return json(error.status, error.body);
  throw error;
}

function fail(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  if (error instanceof RateLimited) response.setHeader("retry-after", String(error.retryAfterSeconds));
  const message = error instanceof Error ? error.message : String(error);
  const shown = error instanceof ApiError ? error : new ApiError(500, "api_error", `the simulator failed: ${message}`);
  write(response, json(shown.status, shown.body));
}

/** Aborts when the client goes away before its answer. */
function goneSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.once("close", () => controller.abort());
  return controller.signal;
}

function endless(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "application/json" });
  const more = () => {
    while (!response.destroyed && response.write(ENDLESS_CHUNK));
  };
  response.on("drain", more);
  response.write('{"id":"');
  more();
}
