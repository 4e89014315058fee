import type { Clock } from "../core/clock.ts";
import { Slots } from "../core/slots.ts";
import type { Metrics } from "../observe/metrics.ts";
import { type Budget, BudgetExhausted } from "./budget.ts";
import { WorkApiError, type WorkErrorKind } from "./errors.ts";
import { HttpFailure, type HttpReply, type HttpSender, type HttpTimes } from "./http.ts";
import { PathError, pathSegment, queryText, splitBaseUrl } from "./paths.ts";
import {
  badItemError,
  type CallContext,
  failureError,
  refusalError,
  replyDateMs,
  replyRetryAfterMs,
  unusableError,
} from "./replies.ts";
import type { WorkCall } from "./types.ts";
import { ItemShapeError, ShapeError } from "./wire.ts";

const API_VERSION = "2023-06-01";
const BETA = "managed-agents-2026-04-01";

/** The headers of every request, whichever client sends it. */
export const API_HEADERS: Readonly<Record<string, string>> = {
  accept: "application/json",
  // No compression, so that the limit of a reply's size also limits memory.
  "accept-encoding": "identity",
  "anthropic-version": API_VERSION,
  "anthropic-beta": BETA,
};

/** One work item or the statistics: a few hundred bytes, plus metadata and a secret. */
export const MAX_REPLY_BYTES = 1024 * 1024;

/** A value with the times that the rules for leases and claims count from. */
export interface Answer<T> extends HttpTimes {
  readonly value: T;
  /** clock.monotonic() just before the request's first byte was written to the socket. */
  readonly sentAtMs: number;
  readonly answeredAtMs: number;
  /** The same instant as `sentAtMs`, on the wall clock. */
  readonly sentAtWallMs: number;
  /** The reply's Date header in milliseconds (whole seconds); null without one. */
  readonly serverDateMs: number | null;
}

/** The API's address and the caller's identity. */
export interface CallerOptions {
  /** May include a path. Throws TypeError if it is not an http(s) URL, or has credentials, a query or a fragment. */
  readonly baseUrl: string;
  readonly environmentId: string;
  /** The environment key, read for each call. */
  readonly key: () => string;
  readonly workspaceId?: string | undefined;
  /** The unit that takes turns in the budget; empty by default. */
  readonly tenant?: string | undefined;
  /** Unique per poller. The API counts these in `workers_polling`, and the budget gives turns by them. */
  readonly workerId: string;
  readonly http: HttpSender;
  readonly budget?: Budget | undefined;
  readonly clock: Clock;
  readonly metrics?: Metrics | undefined;
  /**
   * Throws when this process may no longer act for the environment. Called once the connection is ready, before every
   * request that changes state at the server; a poll does, because it reserves an item. The call then fails as
   * `aborted`, unsent.
   */
  readonly guard?: (() => void) | undefined;
}

/** One call of an endpoint. */
export interface Call {
  readonly call: WorkCall;
  readonly method: "GET" | "POST";
  /** The item of the call, if it concerns one. */
  readonly workId?: string;
  /** The last path segment after `/work` and the item, if any. */
  readonly verb?: string;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
  /** The budget counts the call, but sends it at once, over separate connections. */
  readonly urgent: boolean;
  readonly timeoutMs: number;
  readonly maxBytes?: number;
  /** An organization's API key, used instead of the environment key. */
  readonly apiKey?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Concurrent heartbeats of a caller without a budget. */
const UNSHARED_BEATS = 128;

const NOT_SENT = { sent: false, times: undefined, status: undefined };

/** These headers can't contain a line break or a non-ASCII character. No key or id of the platform does. */
const HEADER_VALUE = /^[\x21-\x7e]+$/;

/** Sends the calls of one environment, each at most once, and turns every reply into an answer or a WorkApiError. */
export class WorkCaller {
  readonly #options: CallerOptions;
  readonly #origin: string;
  readonly #prefix: string;
  readonly #beats = new Slots(UNSHARED_BEATS);

  constructor(options: CallerOptions) {
    const { origin, prefix } = splitBaseUrl(options.baseUrl);
    this.#options = options;
    this.#origin = origin;
    this.#prefix = prefix;
  }

  /** Slots for heartbeats, shared by all members of a budget. */
  get beats(): Slots {
    return this.#options.budget?.beats ?? this.#beats;
  }

  /** The interval between calls of an idle member of the budget, in milliseconds; 0 without a budget. */
  get idleIntervalMs(): number {
    return this.#options.budget?.idleIntervalMs(this.#options.tenant) ?? 0;
  }

  /**
   * Sends `call` and parses its reply with `read`. `accepted` is an error status that `read` handles.
   * @throws WorkApiError
   */
  async answer<T>(call: Call, read: (reply: HttpReply) => T, accepted?: number): Promise<Answer<T>> {
    const context = this.#context(call);
    const request = { path: this.#path(call, context), headers: this.#headers(call, context) };
    await this.#admit(call, context);
    const reply = await this.#send(call, request, context);
    const refused = reply.status < 200 || reply.status > 299;
    if (refused && reply.status !== accepted) throw refusalError(context, reply, this.#options.clock.now());
    try {
      const { sentAtMs, answeredAtMs, sentAtWallMs } = reply;
      return { value: read(reply), sentAtMs, answeredAtMs, sentAtWallMs, serverDateMs: replyDateMs(reply) };
    } catch (error) {
      if (error instanceof ItemShapeError) {
        throw badItemError(call.call, { id: error.id, why: error.message }, context.key);
      }
      if (error instanceof ShapeError) throw unusableError(context, reply, error.message);
      throw error;
    }
  }

  async #send(
    call: Call,
    request: { path: string; headers: Record<string, string> },
    context: CallContext,
  ): Promise<HttpReply> {
    const { clock, http, budget, workerId, tenant } = this.#options;
    const startedAtMs = clock.monotonic();
    try {
      const reply = await http.send({
        ...request,
        method: call.method,
        origin: this.#origin,
        body: call.body === undefined ? undefined : JSON.stringify(call.body),
        lane: call.urgent ? "protocol" : "bulk",
        timeoutMs: call.timeoutMs,
        maxBytes: call.maxBytes ?? MAX_REPLY_BYTES,
        signal: call.signal,
        beforeSend: isRead(call) ? undefined : this.#options.guard,
      });
      const { status, sentAtMs, answeredAtMs } = reply;
      this.#measure(call, String(status), answeredAtMs - sentAtMs);
      const retryAfterMs = replyRetryAfterMs(reply, clock.now());
      budget?.onAnswer(workerId, { status, sentAtMs, retryAfterMs }, tenant);
      return reply;
    } catch (error) {
      if (!(error instanceof HttpFailure)) throw error;
      this.#measure(call, error.kind, clock.monotonic() - startedAtMs);
      throw failureError(context, error);
    }
  }

  /** Waits for the budget, unless the call is urgent. */
  async #admit(call: Call, context: CallContext): Promise<void> {
    const { budget, workerId, tenant } = this.#options;
    if (!budget) return;
    if (call.urgent) {
      budget.countUrgent();
      return;
    }
    try {
      if (await budget.acquire(workerId, call.signal, tenant)) return;
    } catch (error) {
      if (!(error instanceof BudgetExhausted)) throw error;
      const why = `${error.message}; raise the organization's limit, or use fewer Environments in one spec.api.budgetGroup`;
      throw notSent(call, "rate-limited", why, error.retryAfterMs);
    }
    throw failureError(context, new HttpFailure("aborted", NOT_SENT, undefined));
  }

  #context(call: Call): CallContext {
    return {
      call: call.call,
      origin: this.#origin,
      environmentId: this.#options.environmentId,
      workId: call.workId,
      // Secrets created by hand often end with a line break.
      key: (call.apiKey ?? this.#options.key()).trim(),
      apiKey: call.apiKey !== undefined,
      timeoutMs: call.timeoutMs,
    };
  }

  #path(call: Call, { environmentId }: CallContext): string {
    const below = [call.workId, call.verb].filter((part) => part !== undefined);
    try {
      const segments = ["v1", "environments", environmentId, "work", ...below].map(pathSegment);
      return `${this.#prefix}/${segments.join("/")}${queryText(call.query ?? {})}`;
    } catch (error) {
      if (error instanceof PathError) throw notSent(call, "protocol", error.message);
      throw error;
    }
  }

  #headers(call: Call, { key, apiKey }: CallContext): Record<string, string> {
    if (!HEADER_VALUE.test(key)) {
      const what = key === "" ? "is empty" : "has characters that a key cannot have";
      const where = apiKey ? "the API key" : "the environment key";
      throw notSent(call, "auth", `${where} ${what}; check the Secret that spec.api.keySecretRef names`);
    }
    const { workspaceId, workerId } = this.#options;
    // Polls must send it (`workers_polling`). On other calls it tells the server's logs which operator sent the
    // request.
    const own = { "anthropic-worker-id": workerId, ...(workspaceId ? { "anthropic-workspace-id": workspaceId } : {}) };
    for (const [name, value] of Object.entries(own)) {
      if (!HEADER_VALUE.test(value)) {
        throw notSent(call, "bad-request", `the value of the header ${name} has characters that an id cannot have`);
      }
    }
    return {
      ...API_HEADERS,
      ...(apiKey ? { "x-api-key": key } : { authorization: `Bearer ${key}` }),
      ...(call.body === undefined ? {} : { "content-type": "application/json" }),
      ...own,
    };
  }

  #measure({ call }: Call, code: string, ms: number): void {
    this.#options.metrics?.workRequests.inc({ call, code });
    this.#options.metrics?.workRequestSeconds.observe({ call }, ms / 1_000);
  }
}

function isRead({ call, method }: Call): boolean {
  return method === "GET" && call !== "poll";
}

function notSent({ call }: Call, kind: WorkErrorKind, why: string, retryAfterMs?: number): WorkApiError {
  return new WorkApiError({ kind, call, message: `Work API ${call}: not sent, ${why}`, retryAfterMs });
}
