import { isRecord } from "../core/json.ts";
import type { Slots } from "../core/slots.ts";
import { type Answer, type Call, type CallerOptions, WorkCaller } from "./caller.ts";
import type { WorkApiError } from "./errors.ts";
import type { HttpReply } from "./http.ts";
import { badItemError } from "./replies.ts";
import type { HeartbeatOutcome, QueueStats, WorkCall, WorkItem, WorkPage } from "./types.ts";
import { parseHeartbeat, parsePage, parsePolled, parseRefusal, parseStats, parseWorkItem, ShapeError } from "./wire.ts";

export type { Answer } from "./caller.ts";

/** Longest `block_ms` that the API takes. */
export const MAX_BLOCK_MS = 999;
/** Bound of ack, heartbeat, stop and the list for a decision: the time margins of the claim protocol rest on it. */
export const DEFAULT_PROTOCOL_TIMEOUT_MS = 1_500;
/** A page of the list, whose size the server chooses. */
export const MAX_PAGE_BYTES = 8 * 1024 * 1024;
/** A look-up asks for so many items a page; the server may give fewer. */
export const FIND_PAGE_LIMIT = 100;
/** Pages that a look-up reads at most: 1,000 items, of which any number may be stopped for long. */
export const FIND_MAX_PAGES = 10;

export interface WorkApiClientOptions extends CallerOptions {
  readonly requestTimeoutMs: number;
  readonly protocolTimeoutMs?: number | undefined;
}

interface Options {
  readonly signal?: AbortSignal | undefined;
}

/** What became of a look-up of some items. */
export interface Found {
  readonly found: Map<string, WorkItem>;
  /** Items that were shown and are not as they should be: neither found nor absent. */
  readonly unreadable: Map<string, WorkApiError>;
  /** One that was shown without an id: it may be any. */
  readonly nameless: WorkApiError | null;
  /** Every page was read, and the id of every item. Only then is an item that was not found absent; else it is unknown. */
  readonly complete: boolean;
  /** The cursor of the page that would have been read next when the pages ran out; null where there is nothing to go on with. */
  readonly next: string | null;
  /** How many pages were read. */
  readonly pages: number;
  /** Of the first page: the items are at least as new. */
  readonly serverDateMs: number | null;
  readonly sentAtMs: number;
}

/**
 * The Work API of one environment: one function per endpoint. Every call is sent at most once, has a bound, and throws
 * WorkApiError; what to repeat, and when, is the caller's decision (`retryDelayMs`).
 */
export class WorkApiClient {
  readonly environmentId: string;
  /** Where requests go. */
  readonly baseUrl: string;
  readonly #caller: WorkCaller;
  readonly #requestTimeoutMs: number;
  readonly #protocolTimeoutMs: number;

  constructor(options: WorkApiClientOptions) {
    this.environmentId = options.environmentId;
    this.baseUrl = options.baseUrl;
    this.#caller = new WorkCaller(options);
    this.#requestTimeoutMs = options.requestTimeoutMs;
    this.#protocolTimeoutMs = options.protocolTimeoutMs ?? DEFAULT_PROTOCOL_TIMEOUT_MS;
  }

  /** Room for beats: one has to be had before a beat is sent, since its bound counts from then. */
  get beats(): Slots {
    return this.#caller.beats;
  }

  /** How far apart the calls of an idle Environment should be, in milliseconds, for those with work to find room. */
  get idleIntervalMs(): number {
    return this.#caller.idleIntervalMs;
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
    return this.#caller.answer(
      {
        signal: o.signal,
        call: "poll",
        method: "GET",
        verb: "poll",
        query: { block_ms: o.blockMs, reclaim_older_than_ms: o.reclaimOlderThanMs },
        urgent: false,
        timeoutMs: this.#requestTimeoutMs + (o.blockMs ?? 0),
      },
      // 204 is how servers say null; an empty 200 is an error, not an empty queue.
      (reply) => (reply.status === NO_CONTENT ? null : parsePolled(json(reply))),
    );
  }

  /** queued -> starting. Check `acknowledged_at`: an older one is somebody else's. */
  ack(workId: string, o: Options = {}): Promise<Answer<WorkItem>> {
    return this.#caller.answer(this.#protocolCall("ack", workId, o), (reply) => itemOf(reply, workId));
  }

  /** Beats the lease. A 412 is no error but the outcome `refused`. */
  async heartbeat(
    workId: string,
    o: Options & { expected: string; desiredTtlSeconds?: number },
  ): Promise<Answer<HeartbeatOutcome>> {
    if (o.expected === "") throw new TypeError("expected must be NO_HEARTBEAT or the last value that the server gave");
    requireWhole("desiredTtlSeconds", o.desiredTtlSeconds, 1);
    const query = { expected_last_heartbeat: o.expected, desired_ttl_seconds: o.desiredTtlSeconds };
    return this.#caller.answer<HeartbeatOutcome>(
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
    return this.#caller.answer(
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
    const timeoutMs = this.#requestTimeoutMs;
    return this.#caller.answer(
      { signal: o.signal, call: "stats", method: "GET", verb: "stats", urgent: false, timeoutMs },
      (reply) => parseStats(json(reply)),
    );
  }

  /** One page. `urgent`: for a decision about a claim or lease; it has the protocol's bound and never waits. */
  async list(o: Options & { limit?: number; page?: string; urgent?: boolean } = {}): Promise<Answer<WorkPage>> {
    requireWhole("limit", o.limit, 1);
    const urgent = o.urgent ?? false;
    const timeoutMs = urgent ? this.#protocolTimeoutMs : this.#requestTimeoutMs;
    const query = { limit: o.limit, page: o.page };
    return this.#caller.answer(
      { signal: o.signal, call: "list", method: "GET", query, urgent, timeoutMs, maxBytes: MAX_PAGE_BYTES },
      (reply) => parsePage(json(reply)),
    );
  }

  /**
   * Looks for some items by walking the pages of the list, until all are found, the pages end, or `maxPages` were read.
   * Nothing is assumed about order, page size, or how long stopped items stay. An item shown twice counts as last seen;
   * one that moves between pages while they are read may be missed: what rests on absence is looked up twice.
   * With `from`, a cursor that an earlier walk came to, it begins there: what it finds is found, and nothing is absent.
   * @throws WorkApiError when a page cannot be had: then nothing is known.
   */
  async find(
    workIds: readonly string[],
    o: Options & { maxPages?: number; urgent?: boolean; from?: string | undefined } = {},
  ): Promise<Found> {
    const { maxPages = FIND_MAX_PAGES, urgent = false, signal, from } = o;
    const wanted = new Set(workIds);
    const found = new Map<string, WorkItem>();
    const unreadable = new Map<string, WorkApiError>();
    const seenPages = new Set<string>();
    let nameless: WorkApiError | null = null;
    let first: Answer<WorkPage> | undefined;
    let page = from;
    let next: string | null = null;
    let complete = false;
    let pages = 0;
    while (pages < maxPages) {
      const answer = await this.list({
        limit: FIND_PAGE_LIMIT,
        urgent,
        signal,
        ...(page === undefined ? {} : { page }),
      });
      pages += 1;
      first ??= answer;
      for (const item of answer.value.items) {
        if (!wanted.has(item.id)) continue;
        found.set(item.id, item);
        unreadable.delete(item.id);
      }
      for (const { id, why } of answer.value.unreadable) {
        if (id === null) nameless ??= badItemError("list", { id: "without an id", why });
        else if (wanted.has(id) && !found.has(id)) unreadable.set(id, badItemError("list", { id, why }));
      }
      next = answer.value.nextPage;
      complete = next === null && from === undefined && nameless === null;
      // A cursor that comes back would walk in a circle.
      if (next !== null && seenPages.has(next)) next = null;
      if (next === null || found.size + unreadable.size === wanted.size) break;
      seenPages.add(next);
      page = next;
    }
    if (!first) throw new TypeError("maxPages must be at least 1");
    return {
      found,
      unreadable,
      nameless,
      complete,
      next,
      pages,
      serverDateMs: first.serverDateMs,
      sentAtMs: first.sentAtMs,
    };
  }

  /** Needs an organization's API key: the environment key is rejected. Berth itself never calls it. */
  retrieve(workId: string, o: Options & { apiKey: string }): Promise<Answer<WorkItem>> {
    return this.#caller.answer(this.#apiKeyCall("retrieve", "GET", workId, o), (reply) => itemOf(reply, workId));
  }

  /** Merges into the item's metadata; null deletes a key. Needs an API key, as `retrieve`. */
  update(
    workId: string,
    metadata: Readonly<Record<string, string | null>>,
    o: Options & { apiKey: string },
  ): Promise<Answer<WorkItem>> {
    const call = { ...this.#apiKeyCall("update", "POST", workId, o), body: { metadata } };
    return this.#caller.answer(call, (reply) => itemOf(reply, workId));
  }

  #protocolCall(call: "ack" | "heartbeat" | "stop", workId: string, o: Options): Call {
    return {
      call,
      method: "POST",
      workId,
      verb: call,
      urgent: true,
      timeoutMs: this.#protocolTimeoutMs,
      signal: o.signal,
    };
  }

  #apiKeyCall(call: WorkCall, method: "GET" | "POST", workId: string, o: Options & { apiKey: string }): Call {
    const timeoutMs = this.#requestTimeoutMs;
    return { call, method, workId, urgent: false, timeoutMs, apiKey: o.apiKey, signal: o.signal };
  }
}

const NO_CONTENT = 204;
const CONFLICT = 409;
const PRECONDITION_FAILED = 412;

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
