import type { Clock } from "../core/clock.ts";
import type { Metrics } from "../observe/metrics.ts";
import { type Budget, BudgetExhausted } from "./budget.ts";
import { WorkApiError } from "./errors.ts";
import { HttpFailure, type HttpReply, type HttpSender, type Lane } from "./http.ts";
import { PathError, pathSegment, queryText, splitBaseUrl } from "./paths.ts";
import {
  type CallContext,
  failureError,
  refusalError,
  replyDateMs,
  replyRetryAfterMs,
  unusableError,
} from "./replies.ts";
import type { HeartbeatOutcome, QueueStats, WorkCall, WorkItem, WorkPage } from "./types.ts";
import {
  isRecord,
  parseHeartbeat,
  parsePage,
  parsePolled,
  parseRefusal,
  parseStats,
  parseWorkItem,
  ShapeError,
} from "./wire.ts";

const API_VERSION = "2023-06-01";
const BETA = "managed-agents-2026-04-01";

/** Longest `block_ms` that the API takes. */
export const MAX_BLOCK_MS = 999;
/** Bound of ack, heartbeat, stop and the list for a decision: the time margins of the claim protocol rest on it. */
export const DEFAULT_PROTOCOL_TIMEOUT_MS = 1_500;
/** One work item or statistics: a few hundred bytes, plus metadata and a secret. */
export const MAX_REPLY_BYTES = 1024 * 1024;
/** A page of the list, whose size the server chooses. */
export const MAX_PAGE_BYTES = 8 * 1024 * 1024;
/** A look-up asks for so many items a page; the server may give fewer. */
export const FIND_PAGE_LIMIT = 100;
/** Pages that a look-up reads at most: 1,000 items, of which any number may be stopped for long. */
export const FIND_MAX_PAGES = 10;

/** A value with the times that rules about leases and claims count from. */
export interface Answer<T> {
  readonly value: T;
  /** clock.monotonic() just before the request's first byte went to the socket. */
  readonly sentAtMs: number;
  readonly answeredAtMs: number;
  /** The same instant as `sentAtMs`, on the wall clock. */
  readonly sentAtWallMs: number;
  /** The answer's Date header in milliseconds (whole seconds); null when it has none. */
  readonly serverDateMs: number | null;
}

export interface WorkApiClientOptions {
  /** May have a path; TypeError when it is no http(s) URL, or holds credentials, a query or a fragment. */
  readonly baseUrl: string;
  readonly environmentId: string;
  /** The environment key, read at each call. */
  readonly key: () => string;
  readonly workspaceId?: string | undefined;
  /** Unique per poller: what `workers_polling` counts. */
  readonly workerId: string;
  readonly http: HttpSender;
  readonly budget?: Budget | undefined;
  readonly clock: Clock;
  readonly metrics?: Metrics | undefined;
  readonly requestTimeoutMs: number;
  readonly protocolTimeoutMs?: number | undefined;
}

interface Options {
  readonly signal?: AbortSignal | undefined;
}

/** What became of a look-up of some items. */
export interface Found {
  readonly found: Map<string, WorkItem>;
  /** Every page was read. Only then is an item that was not found absent; else it is unknown. */
  readonly complete: boolean;
  /** Of the first page: the items are at least as new. */
  readonly serverDateMs: number | null;
  readonly sentAtMs: number;
}

interface Call extends Options {
  readonly call: WorkCall;
  readonly method: "GET" | "POST";
  /** Segments below `/v1/environments/{environment}/work`. */
  readonly below: readonly string[];
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly urgent: boolean;
  readonly timeoutMs: number;
  readonly maxBytes?: number;
  /** An organization's API key, in place of the environment key. */
  readonly apiKey?: string;
}

/**
 * The Work API of one environment: one function per endpoint. Every call is sent at most once, has a bound, and throws
 * WorkApiError; what to repeat, and when, is the caller's decision (`retryDelayMs`).
 */
export class WorkApiClient {
  readonly environmentId: string;
  readonly #options: WorkApiClientOptions;
  readonly #origin: string;
  readonly #prefix: string;
  readonly #protocolTimeoutMs: number;

  constructor(options: WorkApiClientOptions) {
    const { origin, prefix } = splitBaseUrl(options.baseUrl);
    this.#options = options;
    this.#origin = origin;
    this.#prefix = prefix;
    this.environmentId = options.environmentId;
    this.#protocolTimeoutMs = options.protocolTimeoutMs ?? DEFAULT_PROTOCOL_TIMEOUT_MS;
  }

  /**
   * Takes an item from the queue, or null when there is none. `blockMs` (1-999) waits so long for one to come.
   * A lost answer is a lost secret: the item is offered again after `reclaimOlderThanMs` (server default 5,000).
   */
  async poll(o: Options & { blockMs?: number; reclaimOlderThanMs?: number } = {}): Promise<Answer<WorkItem | null>> {
    if (o.blockMs !== undefined && !(Number.isInteger(o.blockMs) && o.blockMs >= 1 && o.blockMs <= MAX_BLOCK_MS)) {
      throw new TypeError(`blockMs must be a whole number from 1 to ${MAX_BLOCK_MS}, or absent for no waiting`);
    }
    requireWhole("reclaimOlderThanMs", o.reclaimOlderThanMs, 0);
    return this.#answer(
      {
        ...o,
        call: "poll",
        method: "GET",
        below: ["poll"],
        query: { block_ms: o.blockMs, reclaim_older_than_ms: o.reclaimOlderThanMs },
        headers: { "anthropic-worker-id": this.#options.workerId },
        urgent: false,
        timeoutMs: this.#options.requestTimeoutMs + (o.blockMs ?? 0),
      },
      // 204 is how servers say null; an empty 200 is an error, not an empty queue.
      (reply) => (reply.status === NO_CONTENT ? null : parsePolled(json(reply))),
    );
  }

  /** queued -> starting. Check `acknowledged_at`: an older one is somebody else's. */
  ack(workId: string, o: Options = {}): Promise<Answer<WorkItem>> {
    return this.#answer({ ...this.#protocolCall("ack", workId, o) }, (reply) => itemOf(reply, workId));
  }

  /** Beats the lease. A 412 is no error but the outcome `refused`. */
  async heartbeat(
    workId: string,
    o: Options & { expected: string; desiredTtlSeconds?: number },
  ): Promise<Answer<HeartbeatOutcome>> {
    if (o.expected === "") throw new TypeError("expected must be NO_HEARTBEAT or the last value that the server gave");
    requireWhole("desiredTtlSeconds", o.desiredTtlSeconds, 1);
    const query = { expected_last_heartbeat: o.expected, desired_ttl_seconds: o.desiredTtlSeconds };
    return this.#answer<HeartbeatOutcome>(
      { ...this.#protocolCall("heartbeat", workId, o), query },
      (reply) =>
        reply.status === PRECONDITION_FAILED
          ? { kind: "refused", current: refusalOf(reply) }
          : { kind: "beat", beat: parseHeartbeat(json(reply)) },
      PRECONDITION_FAILED,
    );
  }

  /** Graceful -> stopping; `force` -> stopped at once. It has no precondition: fence first. 409 is success too. */
  stop(workId: string, o: Options & { force: boolean }): Promise<Answer<{ alreadyStopped: boolean }>> {
    return this.#answer(
      { ...this.#protocolCall("stop", workId, o), body: { force: o.force } },
      (reply) => {
        if (reply.status === CONFLICT) return { alreadyStopped: true };
        // The deployed service answers 204, the reference shows the item; a web page of some proxy is neither.
        if (reply.body.length > 0) itemOf(reply, workId);
        return { alreadyStopped: false };
      },
      CONFLICT,
    );
  }

  stats(o: Options = {}): Promise<Answer<QueueStats>> {
    const timeoutMs = this.#options.requestTimeoutMs;
    return this.#answer({ ...o, call: "stats", method: "GET", below: ["stats"], urgent: false, timeoutMs }, (reply) =>
      parseStats(json(reply)),
    );
  }

  /** One page. `urgent`: for a decision about a claim or lease; it has the protocol's bound and never waits. */
  async list(o: Options & { limit?: number; page?: string; urgent?: boolean } = {}): Promise<Answer<WorkPage>> {
    requireWhole("limit", o.limit, 1);
    const urgent = o.urgent ?? false;
    const timeoutMs = urgent ? this.#protocolTimeoutMs : this.#options.requestTimeoutMs;
    const query = { limit: o.limit, page: o.page };
    return this.#answer(
      { signal: o.signal, call: "list", method: "GET", below: [], query, urgent, timeoutMs, maxBytes: MAX_PAGE_BYTES },
      (reply) => parsePage(json(reply)),
    );
  }

  /**
   * Looks for some items by walking the pages of the list, until all are found, the pages end, or `maxPages` were read.
   * Nothing is assumed about order, page size, or how long stopped items stay. An item shown twice counts as last seen.
   * @throws WorkApiError when a page cannot be had: then nothing is known.
   */
  async find(workIds: readonly string[], o: Options & { maxPages?: number; urgent?: boolean } = {}): Promise<Found> {
    const { maxPages = FIND_MAX_PAGES, urgent = false, signal } = o;
    const wanted = new Set(workIds);
    const found = new Map<string, WorkItem>();
    const seenPages = new Set<string>();
    let first: Answer<WorkPage> | undefined;
    let page: string | undefined;
    let complete = false;
    for (let read = 0; read < maxPages; read += 1) {
      const answer = await this.list({
        limit: FIND_PAGE_LIMIT,
        urgent,
        signal,
        ...(page === undefined ? {} : { page }),
      });
      first ??= answer;
      for (const item of answer.value.items) if (wanted.has(item.id)) found.set(item.id, item);
      const next = answer.value.nextPage;
      complete = next === null;
      // A cursor that comes back would walk in a circle.
      if (next === null || found.size === wanted.size || seenPages.has(next)) break;
      seenPages.add(next);
      page = next;
    }
    if (!first) throw new TypeError("maxPages must be at least 1");
    return { found, complete, serverDateMs: first.serverDateMs, sentAtMs: first.sentAtMs };
  }

  /** Needs an organization's API key: the environment key is rejected. Berth itself never calls it. */
  retrieve(workId: string, o: Options & { apiKey: string }): Promise<Answer<WorkItem>> {
    return this.#answer(this.#apiKeyCall("retrieve", "GET", workId, o), (reply) => itemOf(reply, workId));
  }

  /** Merges into the item's metadata; null deletes a key. Needs an API key, as `retrieve`. */
  update(
    workId: string,
    metadata: Readonly<Record<string, string | null>>,
    o: Options & { apiKey: string },
  ): Promise<Answer<WorkItem>> {
    const call = { ...this.#apiKeyCall("update", "POST", workId, o), body: { metadata } };
    return this.#answer(call, (reply) => itemOf(reply, workId));
  }

  #protocolCall(call: "ack" | "heartbeat" | "stop", workId: string, o: Options): Call {
    return {
      call,
      method: "POST",
      below: [workId, call],
      urgent: true,
      timeoutMs: this.#protocolTimeoutMs,
      signal: o.signal,
    };
  }

  #apiKeyCall(call: WorkCall, method: "GET" | "POST", workId: string, o: Options & { apiKey: string }): Call {
    const timeoutMs = this.#options.requestTimeoutMs;
    return { call, method, below: [workId], urgent: false, timeoutMs, apiKey: o.apiKey, signal: o.signal };
  }

  /** Sends one call and reads its answer. `accepted` is a refusal's status that `read` understands. */
  async #answer<T>(call: Call, read: (reply: HttpReply) => T, accepted?: number): Promise<Answer<T>> {
    const { reply, context } = await this.#exchange(call);
    const refused = reply.status < 200 || reply.status > 299;
    if (refused && reply.status !== accepted) throw refusalError(context, reply);
    try {
      return {
        value: read(reply),
        sentAtMs: reply.sentAtMs,
        answeredAtMs: reply.answeredAtMs,
        sentAtWallMs: reply.sentAtWallMs,
        serverDateMs: replyDateMs(reply),
      };
    } catch (error) {
      if (error instanceof ShapeError) throw unusableError(context, reply, error.message);
      throw error;
    }
  }

  async #exchange(call: Call): Promise<{ reply: HttpReply; context: CallContext }> {
    const context = this.#context(call);
    const path = this.#path(call, context);
    const headers = this.#headers(call, context);
    await this.#admit(call, context);
    const { clock, http, budget } = this.#options;
    const lane: Lane = call.urgent ? "protocol" : "bulk";
    const startedAt = clock.monotonic();
    try {
      const reply = await http.send({
        method: call.method,
        origin: this.#origin,
        path,
        headers,
        body: call.body === undefined ? undefined : JSON.stringify(call.body),
        lane,
        timeoutMs: call.timeoutMs,
        maxBytes: call.maxBytes ?? MAX_REPLY_BYTES,
        signal: call.signal,
      });
      this.#measure(call, String(reply.status), reply.answeredAtMs - reply.sentAtMs);
      const retryAfterMs = replyRetryAfterMs(reply, clock);
      budget?.onAnswer({ status: reply.status, sentAtMs: reply.sentAtMs, retryAfterMs });
      return { reply, context: { ...context, retryAfterMs } };
    } catch (error) {
      if (!(error instanceof HttpFailure)) throw error;
      this.#measure(call, error.kind, clock.monotonic() - startedAt);
      throw failureError(context, error);
    }
  }

  async #admit(call: Call, context: CallContext): Promise<void> {
    const { budget } = this.#options;
    if (call.urgent) budget?.countUrgent();
    else if (budget) {
      try {
        if (await budget.acquire(this.environmentId, call.signal)) return;
      } catch (error) {
        if (!(error instanceof BudgetExhausted)) throw error;
        const message = `Work API ${call.call}: not sent, ${error.message}; raise spec.api.budgetGroup's limit, or let fewer Environments share it`;
        throw new WorkApiError({ kind: "rate-limited", call: call.call, message, retryAfterMs: error.retryAfterMs });
      }
      throw failureError(context, new HttpFailure("aborted", NOT_SENT, call.signal?.reason));
    }
  }

  #context(call: Call): CallContext {
    let key = call.apiKey;
    if (key === undefined) key = this.#options.key();
    return {
      call: call.call,
      origin: this.#origin,
      environmentId: this.environmentId,
      workId: call.call === "ack" || call.call === "heartbeat" || call.call === "stop" ? call.below[0] : undefined,
      key: key.trim(),
      apiKey: call.apiKey !== undefined,
      timeoutMs: call.timeoutMs,
      retryAfterMs: undefined,
    };
  }

  #path(call: Call, context: CallContext): string {
    try {
      const segments = ["v1", "environments", this.environmentId, "work", ...call.below].map(pathSegment);
      return `${this.#prefix}/${segments.join("/")}${queryText(call.query ?? {})}`;
    } catch (error) {
      if (!(error instanceof PathError)) throw error;
      throw new WorkApiError({
        kind: "protocol",
        call: context.call,
        message: `Work API ${context.call}: not sent, ${error.message}`,
      });
    }
  }

  #headers(call: Call, context: CallContext): Record<string, string> {
    // A line break or a letter beyond Latin-1 cannot stand in a header; no key has one.
    if (!/^[\x21-\x7e]+$/.test(context.key)) {
      const what = context.key === "" ? "is empty" : "holds characters that no key has";
      throw new WorkApiError({
        kind: "auth",
        call: context.call,
        message: `Work API ${context.call}: not sent, the ${context.apiKey ? "API" : "environment"} key ${what}; check the Secret that spec.api.keySecretRef names`,
      });
    }
    return {
      accept: "application/json",
      // No compression: the bound of a reply's size is then a bound of memory.
      "accept-encoding": "identity",
      "anthropic-version": API_VERSION,
      "anthropic-beta": BETA,
      ...(context.apiKey ? { "x-api-key": context.key } : { authorization: `Bearer ${context.key}` }),
      ...(this.#options.workspaceId ? { "anthropic-workspace-id": this.#options.workspaceId } : {}),
      ...(call.body === undefined ? {} : { "content-type": "application/json" }),
      ...call.headers,
    };
  }

  #measure(call: Call, code: string, ms: number): void {
    this.#options.metrics?.workRequests.inc({ call: call.call, code });
    this.#options.metrics?.workRequestSeconds.observe({ call: call.call }, ms / 1_000);
  }
}

const NO_CONTENT = 204;
const CONFLICT = 409;
const PRECONDITION_FAILED = 412;
const NOT_SENT = { sent: false, times: undefined, status: undefined };

/** @throws ShapeError */
function json(reply: HttpReply): unknown {
  const encoding = reply.headers.get("content-encoding");
  if (encoding && encoding !== "identity") throw new ShapeError("the reply", "sent uncompressed, as was asked for");
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(reply.body));
  } catch {
    // The parser's own message quotes the reply, which may hold a secret.
    throw new ShapeError("the reply", "JSON");
  }
}

function refusalOf(reply: HttpReply): ReturnType<typeof parseRefusal> {
  try {
    return parseRefusal(json(reply));
  } catch {
    return null;
  }
}

/** The item of a reply, which must be the one that was asked about. @throws ShapeError */
function itemOf(reply: HttpReply, workId: string): WorkItem {
  const value = json(reply);
  if (isRecord(value) && value["id"] !== workId) throw new ShapeError("the work item", "the one that was asked about");
  return parseWorkItem(value);
}

function requireWhole(name: string, value: number | undefined, least: number): void {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= least)) {
    throw new TypeError(`${name} must be a whole number of at least ${least}`);
  }
}
