import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { endOfTurn } from "../src/core/clock.ts";
import { type ApiRequest, CREDENTIALS, type Route, routeOf } from "./api-request.ts";
import { actorOf, type Caller, type Credential, type RequestExcuse } from "./caller.ts";
import { ApiError, forbidden, notFound, unauthenticated } from "./errors.ts";
import type { Fault } from "./faults.ts";
import { json, type Reply, readJson, write } from "./http.ts";
import { judgeAck, knowsStopped } from "./protocol.ts";
import { RateLimit } from "./rate-limit.ts";
import { SESSIONS_API, type SessionsApiContext } from "./sessions-api.ts";
import { Strikes } from "./strikes.ts";
import type { ViolationKind } from "./violations.ts";
import { WORK_API, type WorkApiContext } from "./work-api.ts";
import type { World } from "./world.ts";

/** The beta header that the platform requires on all these calls. */
const REQUIRED_BETA = "managed-agents-2026-04-01";
/** Handles requests under /admin/. Returns undefined if the path doesn't exist. */
export type AdminHandler = (request: IncomingMessage, path: string) => Promise<Reply | undefined>;

/** The HTTP server: reads, routes, and authenticates requests, applies faults, and answers. */
export class ApiServer {
  readonly #world: World;
  readonly #admin: AdminHandler;
  readonly #server: Server;
  readonly #strikes: Strikes;
  readonly #workApi: Pick<WorkApiContext, "secretFor">;
  readonly #reads: RateLimit | undefined;
  readonly #creates: RateLimit | undefined;

  constructor(world: World, admin: AdminHandler) {
    this.#world = world;
    this.#admin = admin;
    this.#strikes = new Strikes(world.clock, world.deadlines);
    this.#workApi = { secretFor: (found) => world.secretFor(found) };
    const { readsPerMinute, createsPerMinute } = world.limits;
    this.#reads = readsPerMinute === null ? undefined : new RateLimit(readsPerMinute, world.clock.now());
    this.#creates = createsPerMinute === null ? undefined : new RateLimit(createsPerMinute, world.clock.now());
    this.#server = createServer((request, response) => void this.#serve(request, response));
    // Leases are long and workers are few, so idle connections may stay open.
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
    const url = urlOf(request);
    const path = url.pathname;
    response.on("error", () => undefined);
    try {
      if (path === "/healthz") return this.#write(response, json(200, { status: "ok" }));
      if (path.startsWith("/admin/")) {
        const reply = await this.#admin(request, path);
        return this.#write(response, reply ?? json(404, notFound(path).body));
      }
      const route = routeOf(method, path);
      response.once("close", () => {
        const status = response.writableFinished || route?.call === "events-stream" ? response.statusCode : 0;
        const ms = world.clock.now() - at;
        world.countRequest({ at, method, path, call: route?.call, status, ms, ...this.#concerns(request, route) });
      });
      await this.#api(request, response, url, route);
    } catch (error) {
      this.#fail(response, error);
    }
  }

  /** The objects that a request is about, and the client that it names. */
  #concerns(request: IncomingMessage, route: Route | undefined) {
    const { "anthropic-worker-id": workerId, "user-agent": userAgent } = request.headers;
    const environmentId = route?.environmentId ?? this.#world.sessions.get(route?.sessionId ?? "")?.environmentId;
    return {
      ...(route && aboutOf(route)),
      ...(environmentId !== undefined && { environmentId }),
      ...(typeof workerId === "string" && { workerId }),
      ...(userAgent !== undefined && { userAgent }),
    };
  }

  #write(response: ServerResponse, reply: Reply): void {
    write(response, reply, this.#world.clock.now());
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
    if (early && !(await this.#strikes.before(early, response))) return;
    world.deadlines.runDue();
    const sender = this.#authenticate(request, early?.kind === "latency" ? "fault" : undefined);
    this.#checkRequest(request, sender, route, url);
    if (!route) return;
    if ("error" in unread && !(unread.error instanceof ApiError)) return;
    if ("error" in unread) throw this.#violation("invalid-request", unread.error, sender, route);
    const { body } = unread;
    const caller = this.#isLate(route, sender) ? await excusedIfGone(request, sender) : sender;
    const duplicateOffer = early?.kind === "duplicate-offer";
    const { searchParams: query } = url;
    const call = { ...route, query, headers: request.headers, body, caller, duplicateOffer, signal };
    const reply = await this.#dispatch(call).catch(replyOf);
    // Faults don't strike empty polls, because losing their reply has no effect.
    const late = world.faults.strike("after", route, () => route.call !== "poll" || reply.body !== null);
    if (late) await this.#strikes.after(late, reply, response);
    else this.#write(response, reply);
  }

  /**
   * Whether a request may have been in time when its client sent it: an acknowledgement outside its window, or a worker's
   * heartbeat for an item that it knows is stopped. Only for these, the server takes the time to check whether the sender
   * is still connected.
   */
  #isLate({ call, environmentId = "", workId = "" }: Route, caller: Caller): boolean {
    const environment = this.#world.environments.get(environmentId);
    const item = environment?.items.get(workId);
    if (!environment || !item) return false;
    if (call === "ack") {
      const finding = judgeAck(item, caller, this.#world.clock.now(), environment.sides);
      return finding?.kind === "ack-outside-window";
    }
    return call === "heartbeat" && caller.credential.kind === "sessions-token" && knowsStopped(item, caller);
  }

  #fitsBefore(fault: Fault, route: Route): boolean {
    if (fault.kind !== "duplicate-offer") return true;
    return this.#world.environments.get(route.environmentId ?? "")?.hasOffered ?? false;
  }

  #fail(response: ServerResponse, error: unknown): void {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    if (error instanceof RateLimited) response.setHeader("retry-after", String(error.retryAfterSeconds));
    const message = error instanceof Error ? error.message : String(error);
    const shown =
      error instanceof ApiError ? error : new ApiError(500, "api_error", `the simulator failed: ${message}`);
    this.#write(response, json(shown.status, shown.body));
  }

  // --- authentication and checks --------------------------------------------------------------------------------

  /** @throws {ApiError} 401 */
  #authenticate(request: IncomingMessage, excuse: RequestExcuse | undefined): Caller {
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
      excuse,
    };
  }

  /** Checks the headers, the path, the rate, and whether the call accepts the credential. @throws {ApiError} */
  #checkRequest(request: IncomingMessage, caller: Caller, route: Route | undefined, url: URL): void {
    const betas = String(request.headers["anthropic-beta"] ?? "").split(",");
    if (!betas.some((beta) => beta.trim() === REQUIRED_BETA)) {
      throw this.#violation("missing-header", `the header anthropic-beta must contain ${REQUIRED_BETA}`, caller, route);
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
      const details = `${route.call} does not accept a credential of this kind (${credential.kind})`;
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
      // Every malformed request counts once. Polls and results have their own violation kinds.
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

  /** Records a violation and returns the error to answer with. */
  #violation(kind: ViolationKind, reason: unknown, caller: Caller, route: Route | undefined): ApiError {
    const details = reason instanceof Error ? reason.message : String(reason);
    this.#world.record({ kind, details }, actorOf(caller), route && aboutOf(route));
    return new CountedError(details);
  }
}

/** A 400 that is already recorded as a violation. */
class CountedError extends ApiError {
  constructor(message: string) {
    super(400, "invalid_request_error", message);
  }
}

/** A 429 from the simulator's own rate limit. */
class RateLimited extends ApiError {
  readonly retryAfterSeconds: number;
  constructor(retryAfterSeconds: number) {
    super(429, "rate_limit_error", "too many requests");
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

function aboutOf({ environmentId, workId, sessionId }: Route) {
  return {
    ...(environmentId !== undefined && { environmentId }),
    ...(workId !== undefined && { workId }),
    ...(sessionId !== undefined && { sessionId }),
  };
}

/** The reply to a rejected call. @throws errors that aren't ApiErrors */
function replyOf(error: unknown): Reply {
  if (error instanceof ApiError) return json(error.status, error.body);
  throw error;
}

const ORIGIN = "http://simulator";

/** Returns a URL that no route matches if the request target is not a valid URL. */
function urlOf(request: IncomingMessage): URL {
  return URL.parse(request.url ?? "/", ORIGIN) ?? new URL("/invalid", ORIGIN);
}

/**
 * Excuses a sender that closed its connection before the server handled its request: it may have sent the request
 * before it learned what it knows now, and an acknowledgement in time.
 */
async function excusedIfGone({ socket }: IncomingMessage, sender: Caller): Promise<Caller> {
  // Node reads a request in one turn of the event loop and sees the end of its connection in the next.
  await endOfTurn();
  await endOfTurn();
  const isGone = socket.readableEnded || socket.destroyed;
  return isGone ? { ...sender, excuse: sender.excuse ?? "given-up" } : sender;
}

/** Aborts when the client disconnects before it gets an answer. */
function goneSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.once("close", () => controller.abort());
  return controller.signal;
}
