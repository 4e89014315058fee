import { CREDENTIALS, routeOf } from "../../../simulator/api-request.ts";
import type { Caller, Credential } from "../../../simulator/caller.ts";
import type { Environment } from "../../../simulator/environment.ts";
import { ApiError, forbidden, notFound, unauthenticated } from "../../../simulator/errors.ts";
import { json, type Reply } from "../../../simulator/http.ts";
import type { WorkItem } from "../../../simulator/item.ts";
import { limitsSchema, switchesSchema } from "../../../simulator/switches.ts";
import { WORK_API } from "../../../simulator/work-api.ts";
import { World as SimulatedWorld } from "../../../simulator/world.ts";
import { type Clock, sleep } from "../../../src/core/clock.ts";
import { HttpFailure, type HttpReply, type HttpRequest, type HttpSender } from "../../../src/work/http.ts";
import { type Link, NoAnswer } from "./network.ts";

/** The work simulator's rules and judges without its sockets: requests are handled in this process. */
export class WorkApi {
  readonly world: SimulatedWorld;
  /** Requests by call. */
  readonly requests = new Map<string, number>();
  /** Answers a request instead of the simulator, unless it returns undefined. */
  answer: (call: string, request: HttpRequest) => Reply | undefined = () => undefined;

  /** Delays a request at the server, in milliseconds. */
  delay: (call: string, request: HttpRequest) => number = () => 0;
  /** Delays the answer after the request took effect, in milliseconds. */
  answerDelay: (call: string, request: HttpRequest) => number = () => 0;
  /**
   * How far the list lags, in milliseconds, computed for each list. Set it at the start: the list needs the history.
   */
  get listBehindMs(): (() => number) | null {
    return this.#listBehindMs;
  }

  set listBehindMs(behindMs: () => number) {
    if (this.#listBehindMs === null) this.world.events.on("item", () => this.#remember());
    this.#listBehindMs = behindMs;
  }

  #listBehindMs: (() => number) | null = null;
  /** Earlier list contents, by time and environment. */
  readonly #past: { readonly atMs: number; readonly listed: ReadonlyMap<string, readonly WorkItem[]> }[] = [];

  /** How far Date headers are ahead of the server's timestamps, in milliseconds. Null: there are no Date headers. */
  dateAheadMs: (() => number) | null = () => 0;
  /** When (monotonic) the request that is being handled was sent. */
  handledSentMs = 0;
  /** The origins that requests were sent to. */
  readonly origins = new Set<string>();

  constructor(
    clock: Clock,
    options: { switches?: Record<string, unknown>; limits?: Record<string, unknown>; seed?: number } = {},
  ) {
    this.world = new SimulatedWorld({
      clock,
      scale: 1,
      switches: switchesSchema.parse(options.switches ?? {}),
      limits: limitsSchema.parse(options.limits ?? {}),
      apiKey: undefined,
      seed: options.seed ?? 1,
    });
    this.world.baseUrl = BASE_URL;
  }

  /** A sender whose requests travel over this link. */
  sender(link: Link, clock: Clock): HttpSender {
    return { send: (request) => this.#send(link, clock, request) };
  }

  async #send(link: Link, clock: Clock, request: HttpRequest): Promise<HttpReply> {
    const times = { sentAtMs: clock.monotonic(), sentAtWallMs: clock.now() };
    SENT_MS.set(request, times.sentAtMs);
    const gone = new AbortController();
    try {
      const reply = await link.send({
        boundMs: request.timeoutMs,
        signal: request.signal,
        effect: (delayed) => this.#handle(request, delayed, gone.signal),
        refuse: () => new ApiError(503, "overloaded_error", "overloaded"),
      });
      return this.#replyOf(reply, times, clock);
    } catch (error) {
      gone.abort();
      if (error instanceof ApiError) return this.#replyOf(json(error.status, error.body), times, clock);
      if (!(error instanceof NoAnswer)) throw error;
      throw new HttpFailure(
        error.kind,
        { sent: true, times: { ...times, answeredAtMs: clock.monotonic() }, status: undefined },
        error,
      );
    }
  }

  #replyOf(reply: Reply, times: { sentAtMs: number; sentAtWallMs: number }, clock: Clock): HttpReply {
    reply.onAnswered?.();
    return {
      ...times,
      answeredAtMs: clock.monotonic(),
      status: reply.status,
      headers: new Map([...dateOf(reply as Partial<Dated>), ...Object.entries(reply.headers ?? {})]),
      body: Buffer.from(reply.body === undefined ? "" : JSON.stringify(reply.body)),
    };
  }

  async #handle(request: HttpRequest, delayed: boolean, signal: AbortSignal): Promise<Reply> {
    const reply = await this.#answer(request, delayed, signal);
    if (!this.dateAheadMs) return reply;
    return { ...reply, date: new Date(this.world.clock.now() + this.dateAheadMs()).toUTCString() } as Dated;
  }

  async #answer(request: HttpRequest, delayed: boolean, signal: AbortSignal): Promise<Reply> {
    this.origins.add(request.origin);
    const { world } = this;
    world.deadlines.runDue();
    const url = new URL(request.path, BASE_URL);
    const route = routeOf(request.method, url.pathname);
    if (!route) throw notFound(url.pathname);
    this.requests.set(route.call, (this.requests.get(route.call) ?? 0) + 1);
    const delayMs = this.delay(route.call, request);
    if (delayMs > 0) await sleep(world.clock, delayMs);
    const own = this.answer(route.call, request);
    if (own) return own;
    const caller = this.#authenticate(request, delayed);
    const { credential } = caller;
    if (!CREDENTIALS[route.call].includes(credential.kind)) throw forbidden("a credential of the wrong kind");
    if (credential.kind === "sessions-token" && credential.workId !== route.workId)
      throw forbidden("another item's token");
    const environment = world.environment(route.environmentId ?? "");
    environment.sides.heard(caller.workerId);
    const handler = WORK_API[route.call];
    if (!handler) throw notFound(route.call);
    const body = request.body === undefined ? undefined : (JSON.parse(request.body) as Record<string, unknown>);
    const { searchParams: query } = url;
    const { switches, limits } = world;
    const context = {
      switches,
      limits,
      secretFor: world.secretFor.bind(world),
      badPoll: (details: string) => new ApiError(400, "invalid_request_error", details),
    };
    this.handledSentMs = SENT_MS.get(request) ?? 0;
    try {
      const reply = await handler(
        route.call === "list" ? this.#asListed(environment) : environment,
        { ...route, query, headers: {}, body, caller, duplicateOffer: false, signal },
        context,
      );
      const answerDelayMs = this.answerDelay(route.call, request);
      if (answerDelayMs > 0) await sleep(world.clock, answerDelayMs);
      return reply;
    } catch (error) {
      if (error instanceof ApiError) return json(error.status, error.body);
      throw error;
    }
  }

  /** Copies each item as the list shows it now. */
  #remember(): void {
    const atMs = this.world.clock.monotonic();
    const listed = new Map(
      [...this.world.environments.values()].map((environment) => [
        environment.id,
        environment.listed.map((item) => Object.assign(Object.create(Object.getPrototypeOf(item)), item)),
      ]),
    );
    this.#past.push({ atMs, listed });
    while (atMs - (this.#past[1]?.atMs ?? atMs) > LONGEST_BEHIND_MS) this.#past.shift();
  }

  /** The environment as a lagging list shows it. */
  #asListed(environment: Environment): Environment {
    const behindMs = this.#listBehindMs?.() ?? 0;
    if (behindMs <= 0) return environment;
    const asOfMs = this.world.clock.monotonic() - behindMs;
    const listed = this.#past.findLast(({ atMs }) => atMs <= asOfMs)?.listed.get(environment.id) ?? [];
    return Object.create(environment, { listed: { get: () => [...listed] } });
  }

  #authenticate(request: HttpRequest, delayed: boolean): Caller {
    const { authorization = "" } = request.headers;
    const credential: Credential | undefined = this.world.bearer(authorization.slice("Bearer ".length));
    if (!credential) throw unauthenticated();
    const { "anthropic-worker-id": workerId, "user-agent": userAgent = "" } = request.headers;
    return { credential, workerId, userAgent, remote: "", excuse: delayed ? "fault" : undefined };
  }
}

type Dated = Reply & { readonly date: string };

function dateOf({ date }: Partial<Dated>): [string, string][] {
  return date === undefined ? [] : [["date", date]];
}

/** How long list contents are remembered. */
const LONGEST_BEHIND_MS = 30_000;

export const BASE_URL = "https://work.test";

/** When (monotonic) requests were sent. */
const SENT_MS = new WeakMap<HttpRequest, number>();
