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

/** What every request says, whoever sends it. */
export const API_HEADERS: Readonly<Record<string, string>> = {
  accept: "application/json",
  // No compression: the bound of a reply's size is then a bound of memory.
  "accept-encoding": "identity",
  "anthropic-version": API_VERSION,
  "anthropic-beta": BETA,
};

/** One work item or statistics: a few hundred bytes, plus metadata and a secret. */
export const MAX_REPLY_BYTES = 1024 * 1024;

/** A value with the times that rules about leases and claims count from. */
export interface Answer<T> extends HttpTimes {
  readonly value: T;
  /** clock.monotonic() just before the request's first byte went to the socket. */
  readonly sentAtMs: number;
  readonly answeredAtMs: number;
  /** The same instant as `sentAtMs`, on the wall clock. */
  readonly sentAtWallMs: number;
  /** The answer's Date header in milliseconds (whole seconds); null when it has none. */
  readonly serverDateMs: number | null;
}

/** Where calls go, and in whose name. */
export interface CallerOptions {
  /** May have a path; TypeError when it is no http(s) URL, or holds credentials, a query or a fragment. */
  readonly baseUrl: string;
  readonly environmentId: string;
  /** The environment key, read at each call. */
  readonly key: () => string;
  readonly workspaceId?: string | undefined;
  /** What shares its turns in the budget; none: empty. */
  readonly tenant?: string | undefined;
  /** Unique per poller: what `workers_polling` counts, and whose turn it is in the budget. */
  readonly workerId: string;
  readonly http: HttpSender;
  readonly budget?: Budget | undefined;
  readonly clock: Clock;
  readonly metrics?: Metrics | undefined;
  /**
   * Throws when this process may not act for the environment any more. Asked before everything that changes something at
   * the other side (a poll does: it reserves an item), when the connection is at hand. Such a call fails as `aborted`, unsent.
   */
  readonly guard?: (() => void) | undefined;
}

/** One call of one endpoint. */
export interface Call {
  readonly call: WorkCall;
  readonly method: "GET" | "POST";
  /** The item that it is about, if it is about one. */
  readonly workId?: string;
  /** The last segment of the path below `/work` and the item, if there is one. */
  readonly verb?: string;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
  /** Counted by the budget, but sent at once and over connections of its own. */
  readonly urgent: boolean;
  readonly timeoutMs: number;
  readonly maxBytes?: number;
  /** An organization's API key, in place of the environment key. */
  readonly apiKey?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Beats at a time of a caller without a budget. */
const UNSHARED_BEATS = 128;

const NOT_SENT = { sent: false, times: undefined, status: undefined };

/** A line break or a letter beyond ASCII cannot stand in these headers, and no key or id of the platform has one. */
const HEADER_VALUE = /^[\x21-\x7e]+$/;

/** Sends calls of one environment, each at most once, and turns whatever comes back into an answer or a WorkApiError. */
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

  /** Room for beats: all members of a budget share it. */
  get beats(): Slots {
    return this.#options.budget?.beats ?? this.#beats;
  }

  /** How far apart the calls of an idle member of the budget should be; 0 without a budget. */
  get idleIntervalMs(): number {
    return this.#options.budget?.idleIntervalMs(this.#options.tenant) ?? 0;
  }

  /**
   * Sends `call` and has `read` turn its reply into a value. `accepted` is the status of a refusal that `read` takes.
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
        tenant,
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

  /** Waits for the budget where the call may wait. */
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
      const why = `${error.message}; the API allows no more, or too many Environments share one spec.api.budgetGroup`;
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
      // People's Secrets end with a line break more often than not.
      key: (call.apiKey ?? this.#options.key()).trim(),
      apiKey: call.apiKey !== undefined,
      timeoutMs: call.timeoutMs,
      urgent: call.urgent,
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
      const what = key === "" ? "is empty" : "holds characters that no key has";
      const where = apiKey ? "the API key" : "the environment key";
      throw notSent(call, "auth", `${where} ${what}; check the Secret that spec.api.keySecretRef names`);
    }
    const { workspaceId, workerId } = this.#options;
    // Polls must carry it (`workers_polling`); on the rest it tells a server's log which of several operators asked.
    const own = { "anthropic-worker-id": workerId, ...(workspaceId ? { "anthropic-workspace-id": workspaceId } : {}) };
    for (const [name, value] of Object.entries(own)) {
      if (!HEADER_VALUE.test(value)) {
        throw notSent(call, "bad-request", `the value for the header ${name} holds characters that no id has`);
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
