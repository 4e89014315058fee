import type { Random } from "../core/backoff.ts";
import { type Clock, realClock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { isRecord } from "../core/json.ts";
import type { ProxySettings } from "../core/proxy.ts";
import type { Metrics } from "../observe/metrics.ts";
import { ATTACH_TIMEOUT_MS, type AttachStream, openAttach } from "./attach.ts";
import type { ClusterAccess } from "./config.ts";
import { isGone, isTooLarge, KubeApiError, MALFORMED } from "./errors.ts";
import { type Call, Exchange, type Verb } from "./exchange.ts";
import type { KubeList, KubeObject } from "./objects.ts";
import { apiVersionOf, LEASES, PODS, type Resource, resourcePath } from "./resource.ts";
import { objectProblem } from "./status.ts";
import { MAX_LIST_BYTES, MAX_PAGE_BYTES, type TransportResponse } from "./transport.ts";
import { readWatch, type WatchEvent } from "./watch.ts";

/**
 * Shorter than the API server's own bound of 60 s, which is too long for callers that need an answer to claim an item.
 */
const REQUEST_TIMEOUT_MS = 30_000;

/** A million objects in pages of 250. No cluster has that many of one kind, so such a list never ends. */
const MAX_PAGES = 4_000;

/** Half the page size of kubectl and client-go: a page's text and all its parsed objects are in memory at once. */
const PAGE_SIZE = 250;

/** The page size is divided by this after a page that was too large, and doubles after each page that was not. */
const PARTS = 8;

const PATCH_TYPES = {
  merge: "application/merge-patch+json",
  json: "application/json-patch+json",
  strategic: "application/strategic-merge-patch+json",
  /** Server-side apply. The body is JSON, which is valid YAML. */
  apply: "application/apply-patch+yaml",
} as const;

const METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

export interface KubeClientOptions {
  readonly access: ClusterAccess;
  readonly clock?: Clock;
  readonly metrics?: Metrics;
  /** Proxies from the process's settings. If unset, the environment counts (HTTPS_PROXY, NO_PROXY). */
  readonly proxy?: ProxySettings;
  readonly userAgent?: string;
  /** Bound of one call with all its retries, unless the call has its own; 30 s by default. */
  readonly requestTimeoutMs?: number;
  readonly random?: Random;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Bound of the whole call, retries included. */
  readonly timeoutMs?: number;
}

export interface ObjectRef {
  readonly namespace?: string | undefined;
  readonly name: string;
}

export interface ListQuery {
  /** Unset: all namespaces. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  readonly limit?: number | undefined;
  readonly continue?: string | undefined;
  readonly resourceVersion?: string | undefined;
  readonly resourceVersionMatch?: "Exact" | "NotOlderThan" | undefined;
}

export interface WatchQuery {
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  readonly resourceVersion: string;
  readonly timeoutSeconds?: number | undefined;
}

export interface CreateQuery {
  readonly dryRun?: boolean;
  readonly fieldValidation?: "Strict" | "Warn" | "Ignore";
  readonly fieldManager?: string;
}

export interface PatchQuery {
  readonly type: keyof typeof PATCH_TYPES;
  /** The answer has only the object's metadata: a large object takes the API server and us time. */
  readonly metadataOnly?: boolean;
  readonly subresource?: string;
  /** Required by `apply`. */
  readonly fieldManager?: string;
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly fieldValidation?: "Strict" | "Warn" | "Ignore";
}

export interface DeleteQuery {
  /** Preconditions: another object of the same name, or a changed one, leads to a Conflict. */
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly gracePeriodSeconds?: number;
  readonly propagationPolicy?: "Background" | "Foreground" | "Orphan";
}

export type RawMethod = Call["method"];

/**
 * A client of one API server: raw JSON in and out, over shared connections. Every method throws KubeApiError. For
 * writes with an unknown outcome, see its `maybeApplied`.
 */
export class KubeClient {
  readonly #options: KubeClientOptions;
  readonly #exchange: Exchange;
  readonly #timeoutMs: number;
  readonly #fence: (() => void) | undefined;

  constructor(options: KubeClientOptions, shared?: { exchange: Exchange; fence: () => void }) {
    const { access, clock = realClock, metrics, proxy, userAgent = "berth" } = options;
    const { random = Math.random, requestTimeoutMs = REQUEST_TIMEOUT_MS } = options;
    this.#exchange = shared?.exchange ?? new Exchange({ access, clock, metrics, proxy, userAgent, random });
    this.#timeoutMs = requestTimeoutMs;
    this.#fence = shared?.fence;
    this.#options = options;
  }

  /**
   * Returns a client with the same connections whose writes call `fence` first. `fence` throws when this process must
   * not act any more. It runs when a write is called and again when a connection is available, so that time in a queue
   * does not matter.
   */
  fenced(fence: () => void): KubeClient {
    const outer = this.#fence;
    const both = outer
      ? () => {
          outer();
          fence();
        }
      : fence;
    return new KubeClient(this.#options, { exchange: this.#exchange, fence: both });
  }

  /**
   * The current time of the API server's clock, in milliseconds since the epoch. Compare times in objects with it,
   * since our machine's clock may be minutes off. It may jump; use the monotonic clock for durations.
   */
  now(): number {
    return this.#exchange.now();
  }

  async get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef, o: CallOptions = {}): Promise<T> {
    const call = this.#call("get", "GET", resource, ref, o);
    const object = await this.#object<T>({ ...call, repeatable: true });
    // Live reads decide about deletions: an answer with another object must not look as if the object was recreated.
    if (object.metadata.name === ref.name && object.metadata.uid) return object;
    throw malformed(call, 200, "it is not the requested object");
  }

  /** Lists one page, or everything without a limit. Adds apiVersion and kind, which the server omits from items. */
  async list<T extends KubeObject>(
    resource: Resource<T>,
    q: ListQuery = {},
    o: CallOptions = {},
  ): Promise<KubeList<T>> {
    const { namespace, ...rest } = q;
    const call = this.#call("list", "GET", resource, { namespace }, o, rest);
    const maxBytes = q.limit === undefined ? MAX_LIST_BYTES : MAX_PAGE_BYTES;
    const body = await this.#json({ ...call, repeatable: true, maxBytes });
    const found = listProblem(body);
    if (found) throw malformed(call, 200, found);
    const list = body as unknown as KubeList<T>;
    const apiVersion = apiVersionOf(resource);
    const items = list.items ?? [];
    for (const item of items) {
      item.apiVersion ??= apiVersion;
      item.kind ??= resource.kind;
    }
    return { ...list, metadata: list.metadata ?? {}, items };
  }

  /**
   * Lists everything, in pages of one snapshot, or as one list if the snapshot expires before its last page. Large
   * objects are requested in smaller pages. `keep` reduces each item, so that at most one page of whole objects is in
   * memory.
   */
  async listAll<T extends KubeObject>(
    resource: Resource<T>,
    q: Omit<ListQuery, "limit" | "continue"> = {},
    { keep = (item) => item, ...o }: CallOptions & { readonly keep?: (item: T) => T } = {},
    pageSize: number = PAGE_SIZE,
  ): Promise<KubeList<T>> {
    const pages = { limit: pageSize, most: pageSize };
    const first = await this.#page(resource, q, o, pages);
    const items = first.items.map(keep);
    const tokens = new Set<string>();
    let token = first.metadata.continue;
    while (token) {
      // A repeated token means an endless loop, and the memory would grow with each round.
      if (tokens.has(token) || tokens.size >= MAX_PAGES) throw endless(resource);
      tokens.add(token);
      let page: KubeList<T>;
      try {
        const next = { ...q, resourceVersion: undefined, resourceVersionMatch: undefined, continue: token };
        page = await this.#page(resource, next, o, pages);
      } catch (error) {
        if (!isGone(error)) throw error;
        const whole = await this.list(resource, q, o);
        return { ...whole, items: whole.items.map(keep) };
      }
      for (const item of page.items) items.push(keep(item));
      token = page.metadata.continue;
    }
    const { continue: _token, remainingItemCount: _count, ...metadata } = first.metadata;
    return { ...first, metadata, items };
  }

  /** Lists the next page, with as many objects as fit. `pages` remembers that number. */
  async #page<T extends KubeObject>(
    resource: Resource<T>,
    q: ListQuery,
    o: CallOptions,
    pages: { limit: number; readonly most: number },
  ): Promise<KubeList<T>> {
    for (;;) {
      try {
        const page = await this.list(resource, { ...q, limit: pages.limit }, o);
        pages.limit = Math.min(pages.most, pages.limit * 2);
        return page;
      } catch (error) {
        if (!isTooLarge(error) || pages.limit <= 1) throw error;
        pages.limit = Math.max(1, Math.floor(pages.limit / PARTS));
      }
    }
  }

  /** Creates the object in the namespace of its metadata. */
  async create<T extends KubeObject>(
    resource: Resource<T>,
    object: T,
    q: CreateQuery = {},
    o: CallOptions = {},
  ): Promise<T> {
    const { namespace, name } = object.metadata;
    const query = { ...q, dryRun: q.dryRun ? "All" : undefined };
    const call = this.#call("create", "POST", resource, { namespace }, o, query, name);
    return this.#object<T>({ ...call, body: withType(resource, object) });
  }

  /** Replaces the object. Its resourceVersion, if set, is a precondition. */
  async replace<T extends KubeObject>(
    resource: Resource<T>,
    object: T,
    q: { subresource?: string; fieldManager?: string } = {},
    o: CallOptions = {},
  ): Promise<T> {
    const { namespace, name } = object.metadata;
    if (name === undefined) throw new TypeError("an object without a name cannot be replaced");
    const { subresource, ...query } = q;
    const call = this.#call("update", "PUT", resource, { namespace, name, subresource }, o, query);
    return this.#object<T>({ ...call, body: withType(resource, object), repeatable: true });
  }

  /** A resourceVersion in the patch's metadata is a precondition, except for `json` (use a `test` operation there). */
  async patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: unknown,
    q: PatchQuery,
    o: CallOptions = {},
  ): Promise<T> {
    const { type, subresource, metadataOnly, ...rest } = q;
    const query = { ...rest, dryRun: q.dryRun ? "All" : undefined };
    const call = this.#call("patch", "PATCH", resource, { ...ref, subresource }, o, query);
    const accept = metadataOnly ? METADATA_ONLY : undefined;
    return this.#object<T>({ ...call, body: patch, contentType: PATCH_TYPES[type], accept });
  }

  /** Returns when the server has accepted the deletion. The object may exist longer (grace period, finalizers). */
  async delete(resource: Resource, ref: ObjectRef, q: DeleteQuery = {}, o: CallOptions = {}): Promise<void> {
    const { uid, resourceVersion, ...options } = q;
    const preconditions = uid === undefined && resourceVersion === undefined ? undefined : { uid, resourceVersion };
    const body = { apiVersion: "v1", kind: "DeleteOptions", ...options, preconditions };
    await this.#json({ ...this.#call("delete", "DELETE", resource, ref, o), body, repeatable: true });
  }

  /**
   * Yields changes since a resourceVersion, with bookmarks. Ends when the server ends the watch (after
   * `timeoutSeconds`) or the signal aborts. Throws KubeApiError for an ERROR event (isGone: list again) and for a
   * broken or dead connection (status 0).
   */
  watch<T extends KubeObject>(
    resource: Resource<T>,
    q: WatchQuery,
    o: { signal: AbortSignal },
  ): AsyncGenerator<WatchEvent<T>, void, undefined> {
    const { namespace, ...rest } = q;
    const query = { ...rest, watch: "true", allowWatchBookmarks: "true" };
    return readWatch<T>(this.#exchange, this.#call("watch", "GET", resource, { namespace }, o, query));
  }

  /**
   * Attaches to the standard input and output of a running container. A frame is a write: the fence is called when the
   * stream is opened and before each frame. `o` bounds only the opening, by default to 10 s.
   */
  attach(ref: Required<ObjectRef>, q: { container: string }, o: CallOptions = {}): Promise<AttachStream> {
    const query = { ...q, stdin: true, stdout: true, stderr: false, tty: false };
    const call = this.#call("get", "GET", PODS, { ...ref, subresource: "attach" }, o, query);
    const { timeoutMs = ATTACH_TIMEOUT_MS } = o;
    return openAttach(this.#exchange, { ...call, repeatable: true, timeoutMs, fence: this.#fence });
  }

  /** Returns the first `limitBytes` of a container's log. */
  async log(ref: Required<ObjectRef>, q: { container: string; limitBytes: number }, o: CallOptions = {}) {
    const call = this.#call("get", "GET", PODS, { ...ref, subresource: "log" }, o, q);
    const answer = await this.#exchange.send({ ...call, repeatable: true });
    return answer.body.toString("utf8");
  }

  /**
   * Sends a request to any other path: /version, /readyz, subresources. Returns parsed JSON, or text. Never retried.
   */
  async raw(method: RawMethod, path: string, body?: unknown, o: CallOptions = {}): Promise<unknown> {
    const answer = await this.#exchange.send({
      verb: "raw",
      label: "raw",
      about: `${method} ${path.replace(/\?.*/, "")}`,
      method,
      path,
      body,
      repeatable: false,
      urgent: false,
      timeoutMs: o.timeoutMs ?? this.#timeoutMs,
      signal: o.signal,
      fence: method === "GET" ? undefined : this.#fence,
    });
    const text = answer.body.toString("utf8");
    return answer.headers["content-type"]?.includes("json") ? JSON.parse(text) : text;
  }

  /** Cancels all calls and watches, also those of fenced clients. */
  close(): Promise<void> {
    return this.#exchange.close();
  }

  #call(
    verb: Verb,
    method: Call["method"],
    resource: Resource,
    ref: { namespace?: string | undefined; name?: string; subresource?: string | undefined },
    o: CallOptions,
    query: Record<string, string | number | boolean | undefined> = {},
    name = ref.name,
  ): Call {
    const { subresource } = ref;
    const label = subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`;
    const where = [ref.namespace, name].filter((part) => part !== undefined).join("/");
    const path = resourcePath(resource, ref) + (subresource === undefined ? "" : `/${subresource}`);
    return {
      verb,
      label,
      about: `${verb} ${label}${where === "" ? "" : ` ${where}`}`,
      method,
      path: path + queryString(query),
      repeatable: false,
      urgent: resource.group === LEASES.group,
      timeoutMs: o.timeoutMs ?? this.#timeoutMs,
      signal: o.signal,
      fence: method === "GET" ? undefined : this.#fence,
    };
  }

  async #object<T extends KubeObject>(call: Call): Promise<T> {
    const body = await this.#json(call);
    const found = objectProblem(body);
    if (found) throw malformed(call, 200, found);
    return body as T;
  }

  async #json(call: Call): Promise<Record<string, unknown>> {
    return parseAnswer(call, await this.#exchange.send(call));
  }
}

/** Returns why an answer is no list; null if it is one. */
function listProblem({ items, metadata }: Record<string, unknown>): string | null {
  if (!Array.isArray(items) && items !== null) return "it is not a list";
  const token = isRecord(metadata) ? metadata["continue"] : undefined;
  if ((metadata !== undefined && !isRecord(metadata)) || (token !== undefined && typeof token !== "string")) {
    return "its metadata is not that of a list";
  }
  for (const item of items ?? []) {
    const found = objectProblem(item);
    if (found) return `of an item, ${found}`;
  }
  return null;
}

function endless(resource: Resource): KubeApiError {
  const text = `list ${resource.plural}: the pages have no end: a continue token came back, or there were ${MAX_PAGES}`;
  return new KubeApiError(text, { status: 0, reason: MALFORMED });
}

/** An answer that is not from the API server (a proxy's page with status 200) is no success. */
function parseAnswer(call: Call, answer: TransportResponse): Record<string, unknown> {
  try {
    const body: unknown = JSON.parse(answer.body.toString("utf8"));
    if (isRecord(body)) return body;
  } catch (error) {
    throw malformed(call, answer.status, errorText(error));
  }
  throw malformed(call, answer.status, "it is not a JSON object");
}

function malformed(call: Call, status: number, why: string): KubeApiError {
  return new KubeApiError(`${call.about}: the answer (HTTP ${status}) is not the API server's: ${why}`, {
    status,
    reason: MALFORMED,
    maybeApplied: call.method !== "GET",
  });
}

function withType<T extends KubeObject>(resource: Resource<T>, object: T): T {
  return { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object };
}

function queryString(query: Record<string, string | number | boolean | undefined>): string {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") parameters.set(key, String(value));
  }
  const text = parameters.toString();
  return text === "" ? "" : `?${text}`;
}
