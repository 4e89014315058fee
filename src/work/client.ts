import { isRecord } from "../core/json.ts";
import type { Slots } from "../core/slots.ts";
import { DEFAULT_TIMING } from "../core/timing.ts";
import { type Answer, type Call, type CallerOptions, WorkCaller } from "./caller.ts";
import type { WorkApiError } from "./errors.ts";
import type { HttpReply } from "./http.ts";
import { badItemError, isTooLarge } from "./replies.ts";
import type { HeartbeatOutcome, QueueStats, WorkCall, WorkItem, WorkPage } from "./types.ts";
import { parseHeartbeat, parsePage, parsePolled, parseRefusal, parseStats, parseWorkItem, ShapeError } from "./wire.ts";

export type { Answer } from "./caller.ts";

/** The largest `block_ms` that the API accepts. */
const MAX_BLOCK_MS = 999;
/** The most bytes of one page of the list. A page that exceeds them is requested again with half as many items. */
export const MAX_PAGE_BYTES = 8 * 1024 * 1024;
/** The largest `limit` of a page that the API accepts; the server may return fewer items. */
export const PAGE_LIMIT = 1_000;
/** No page with fewer items is requested, because 8 MiB have room for as many of the largest items: 64 KiB each. */
const LEAST_PAGE_LIMIT = 125;
/** The most pages that a search reads: 10,000 items, any number of which may have stopped long ago. */
export const LIST_MAX_PAGES = 10;

export interface WorkApiClientOptions extends CallerOptions {
  /** Timeout of polls, statistics and lists. */
  readonly requestTimeoutMs?: number | undefined;
  /** Timeout of ack, heartbeat, stop and the list for a decision. The claim protocol's time margins depend on it. */
  readonly protocolTimeoutMs?: number | undefined;
}

interface Options {
  readonly signal?: AbortSignal | undefined;
}

/** The result of a search for some items. */
export interface Found {
  readonly found: Map<string, WorkItem>;
  /** Listed items that could not be parsed. They are neither found nor absent. */
  readonly unreadable: Map<string, WorkApiError>;
  /** The error for a listed item without an id, which could be any item; null if there is none. */
  readonly nameless: WorkApiError | null;
  /**
   * Every page was read, and every item had an id. Only then is an item that was not found absent; otherwise it is
   * unknown.
   */
  readonly complete: boolean;
  /** The cursor of the next unread page; null if there is none. */
  readonly next: string | null;
  /** The number of pages read. */
  readonly pages: number;
  /** The Date of the first page; all listed items are at least this new. */
  readonly serverDateMs: number | null;
  readonly sentAtMs: number;
}

/**
 * The Work API of one environment, with one function per endpoint. Every call is sent at most once, has a timeout, and
 * throws WorkApiError. The caller decides what to retry, and when (`retryDelayMs`).
 */
export class WorkApiClient {
  readonly environmentId: string;
  readonly #caller: WorkCaller;
  readonly #requestTimeoutMs: number;
  readonly #protocolTimeoutMs: number;
  /** The items of one page; fewer than PAGE_LIMIT once a page was too large. */
  #pageLimit = PAGE_LIMIT;

  constructor(options: WorkApiClientOptions) {
    this.environmentId = options.environmentId;
    this.#caller = new WorkCaller(options);
    this.#requestTimeoutMs = options.requestTimeoutMs ?? DEFAULT_TIMING.requestTimeoutMs;
    this.#protocolTimeoutMs = options.protocolTimeoutMs ?? DEFAULT_TIMING.requestBoundMs;
  }

  /** Slots for heartbeats. Acquire one before sending a heartbeat, because its timeout starts when it is sent. */
  get beats(): Slots {
    return this.#caller.beats;
  }

  /** The interval between calls of an idle Environment, in milliseconds. It leaves room for Environments with work. */
  get idleIntervalMs(): number {
    return this.#caller.idleIntervalMs;
  }

  /**
   * Takes an item from the queue; null if the queue is empty. The server waits up to `blockMs` (1-999) for an item. If
   * the answer is lost, so is its secret: the server offers the item again after `reclaimOlderThanMs` (default 5,000).
   */
  async poll(o: Options & { blockMs?: number; reclaimOlderThanMs?: number } = {}): Promise<Answer<WorkItem | null>> {
    if (o.blockMs !== undefined && !(Number.isInteger(o.blockMs) && o.blockMs >= 1 && o.blockMs <= MAX_BLOCK_MS)) {
      throw new TypeError(`blockMs must be a whole number from 1 to ${MAX_BLOCK_MS}, or absent for no waiting`);
    }
    requireWhole("reclaimOlderThanMs", o.reclaimOlderThanMs, 1);
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
      // A 204 means null. An empty 200 is an error, not an empty queue.
      (reply) => (reply.status === NO_CONTENT ? null : parsePolled(json(reply))),
    );
  }

  /** queued -> starting. Check `acknowledged_at`: an earlier time means that another client acknowledged the item. */
  ack(workId: string, o: Options = {}): Promise<Answer<WorkItem>> {
    return this.#caller.answer(this.#protocolCall("ack", workId, o), (reply) => itemOf(reply, workId));
  }

  /** Sends a heartbeat. A 412 is not an error; its outcome is `refused`. */
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

  /**
   * Graceful -> stopping; `force` -> stopped at once. The API has no precondition for it, so fence first. A 409 is also
   * success.
   */
  stop(workId: string, o: Options & { force: boolean }): Promise<Answer<{ alreadyStopped: boolean }>> {
    return this.#caller.answer(
      { ...this.#protocolCall("stop", workId, o), body: { force: o.force } },
      (reply) => {
        if (reply.status === CONFLICT) return { alreadyStopped: true };
        // The deployed service answers 204, and the reference returns the item. A proxy's web page is neither.
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

  /**
   * Lists one page. `urgent` is for a decision about a claim or lease: it has the protocol's timeout and never waits
   * for the budget. With `wanted`, the answer has only these items, and those without an id. A page that is too large
   * is requested again with half as many items, and so are all later pages.
   */
  async list(
    o: Options & { page?: string; urgent?: boolean; wanted?: ReadonlySet<string> } = {},
  ): Promise<Answer<WorkPage>> {
    const urgent = o.urgent ?? false;
    const timeoutMs = urgent ? this.#protocolTimeoutMs : this.#requestTimeoutMs;
    for (let limit = this.#pageLimit; ; limit = Math.floor(limit / 2)) {
      const query = { limit, page: o.page };
      try {
        const answer = await this.#caller.answer(
          { signal: o.signal, call: "list", method: "GET", query, urgent, timeoutMs, maxBytes: MAX_PAGE_BYTES },
          (reply) => parsePage(json(reply), o.wanted),
        );
        this.#pageLimit = Math.min(this.#pageLimit, limit);
        return answer;
      } catch (error) {
        if (limit <= LEAST_PAGE_LIMIT || !isTooLarge(error)) throw error;
      }
    }
  }

  /**
   * Searches the list for some items, page by page, until all are found, the list ends, or LIST_MAX_PAGES were read.
   * Assumes nothing about order, page size, or how long stopped items stay listed. If an item is listed twice, the last
   * state counts. An item that moves between pages during the search may be missed, so search twice before relying on
   * an absence. With `from`, the cursor of an earlier search, it continues there; then no item counts as absent.
   * @throws WorkApiError if a page can't be read; then nothing is known.
   */
  async find(
    workIds: readonly string[],
    { urgent = false, signal, from }: Options & { urgent?: boolean; from?: string | undefined } = {},
  ): Promise<Found> {
    const wanted = new Set(workIds);
    const found = new Map<string, WorkItem>();
    const unreadable = new Map<string, WorkApiError>();
    const seenPages = new Set<string>();
    let nameless: WorkApiError | null = null;
    let first: Answer<WorkPage> | null = null;
    let page = from;
    let next: string | null = null;
    let complete = false;
    let pages = 0;
    do {
      const answer: Answer<WorkPage> = await this.list({
        urgent,
        signal,
        // Each session's end reads a page of up to a thousand items, nearly all of them other sessions'.
        wanted,
        ...(page === undefined ? {} : { page }),
      });
      pages += 1;
      first ??= answer;
      for (const item of answer.value.items) {
        found.set(item.id, item);
        unreadable.delete(item.id);
      }
      for (const { id, why } of answer.value.unreadable) {
        if (id === null) nameless ??= badItemError("list", { id: "without an id", why });
        else if (!found.has(id)) unreadable.set(id, badItemError("list", { id, why }));
      }
      next = answer.value.nextPage;
      complete = next === null && from === undefined && nameless === null;
      // A repeated cursor would cause an endless loop.
      if (next !== null && seenPages.has(next)) next = null;
      if (next === null || found.size + unreadable.size === wanted.size) break;
      seenPages.add(next);
      page = next;
    } while (pages < LIST_MAX_PAGES);
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

  /** Needs an organization's API key: the API rejects the environment key. Berth itself never calls it. */
  retrieve(workId: string, o: Options & { apiKey: string }): Promise<Answer<WorkItem>> {
    return this.#caller.answer(this.#apiKeyCall("retrieve", "GET", workId, o), (reply) => itemOf(reply, workId));
  }

  /** Merges into the item's metadata; null deletes a key. Needs an API key, like `retrieve`. */
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
  if (encoding && encoding !== "identity") throw new ShapeError("the reply", "sent uncompressed, as requested");
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(reply.body));
  } catch {
    // The parser's message quotes the reply, which may contain a secret.
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

/**
 * Parses the item of a reply, which must be the requested one.
 * @throws ShapeError
 */
function itemOf(reply: HttpReply, workId: string): WorkItem {
  const value = json(reply);
  if (isRecord(value) && value["id"] !== workId) throw new ShapeError("the work item", "the requested one");
  return parseWorkItem(value);
}

function requireWhole(name: string, value: number | undefined, least: number): void {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= least)) {
    throw new TypeError(`${name} must be a whole number of at least ${least}`);
  }
}
