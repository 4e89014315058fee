import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { stringify } from "yaml";

/**
 * Who asked for what, without bodies, once per request when it is complete. A watch is complete when it ends: one that
 * is open now is not counted. Health probes are of no interest.
 */
export const AUDIT_POLICY = stringify({
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived", "ResponseStarted"],
  omitManagedFields: true,
  rules: [{ level: "None", nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"] }, { level: "Metadata" }],
});

/** One request, as far as counts are concerned. */
export interface AuditEntry {
  /** The user whose rights were used: the impersonated one, where there is one. */
  readonly user: string;
  /** get, list, watch, create, update, patch, delete, deletecollection; for other paths the HTTP method in small letters. */
  readonly verb: string;
  /** Plural resource, or the path of a request that has none. */
  readonly resource: string;
  /** Empty when there is none. */
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** HTTP status of the answer; 0 when there was none. */
  readonly code: number;
  readonly userAgent: string;
  /** Milliseconds since the epoch at which the request came. */
  readonly receivedAt: number;
  /** Milliseconds since the epoch at which the answer was complete. */
  readonly completedAt: number;
}

/** How often one kind of request was made. */
export interface AuditCount {
  readonly user: string;
  readonly verb: string;
  readonly resource: string;
  readonly subresource: string;
  readonly code: number;
  readonly count: number;
}

/** A place in the log: what was complete before it is behind it. */
export interface AuditMark {
  readonly offset: number;
}

/** Which requests to look at; what is left out does not restrict. */
export interface AuditFilter {
  readonly since?: AuditMark;
  readonly user?: string;
  readonly resource?: string;
  readonly verb?: string;
  readonly namespace?: string;
}

/** A path that the API server answers and nobody asks for; the query tells one fence from another. */
const FENCE_PATH = "/version?audit-fence=";
/** The API server writes the line of a request right after its answer; more than this is a fault. */
const FENCE_TIMEOUT_MS = 10_000;
const FENCE_POLL_MS = 5;
const CHUNK_BYTES = 1 << 20;

/** Reads the audit log of a running API server. */
export class AuditLog {
  readonly file: string;
  readonly #get: (path: string) => Promise<unknown>;

  /** @param get sends a GET to the API server, as a user that may ask for its version. */
  constructor(file: string, get: (path: string) => Promise<unknown>) {
    this.file = file;
    this.#get = get;
  }

  /** A mark for `since`: everything that was answered before the call is behind it. */
  async mark(): Promise<AuditMark> {
    return { offset: await this.#fence() };
  }

  /** Requests that were answered before this call, summed up, the most frequent first. */
  async counts(filter: AuditFilter = {}): Promise<AuditCount[]> {
    return countEntries(await this.entries(filter));
  }

  /** How many requests match. */
  async total(filter: AuditFilter = {}): Promise<number> {
    return (await this.entries(filter)).length;
  }

  /** Requests that were answered before this call, in the order of the log. */
  async entries(filter: AuditFilter = {}): Promise<AuditEntry[]> {
    const end = await this.#fence();
    const entries: AuditEntry[] = [];
    for await (const line of readLines(this.file, filter.since?.offset ?? 0, end)) {
      const entry = parseAuditLine(line.text);
      if (entry && matches(entry, filter)) entries.push(entry);
    }
    return entries;
  }

  /**
   * The line of a request may be written a moment after its answer was read. So ask for something recognizable and
   * wait for its line: the lines of earlier requests are in front of it. Returns the offset behind it.
   */
  async #fence(): Promise<number> {
    const fence = FENCE_PATH + randomBytes(8).toString("hex");
    const deadline = performance.now() + FENCE_TIMEOUT_MS;
    let offset = await fileSize(this.file);
    await this.#get(fence);
    for (;;) {
      for await (const line of readLines(this.file, offset)) {
        offset = line.end;
        if (line.text.includes(fence)) return offset;
      }
      if (performance.now() > deadline) throw new Error(`${this.file} does not show a request that was answered`);
      await delay(FENCE_POLL_MS);
    }
  }
}

/** One line of the log, or undefined for what is none of a client's requests: a broken line, a fence. */
export function parseAuditLine(line: string): AuditEntry | undefined {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (!isObject(event)) return undefined;
  const uri = text(event["requestURI"]);
  if (uri.startsWith(FENCE_PATH)) return undefined;
  const user = isObject(event["impersonatedUser"]) ? event["impersonatedUser"] : event["user"];
  const ref = isObject(event["objectRef"]) ? event["objectRef"] : undefined;
  const status = isObject(event["responseStatus"]) ? event["responseStatus"] : {};
  const code = status["code"];
  return {
    user: isObject(user) ? text(user["username"]) : "",
    verb: text(event["verb"]),
    resource: ref ? text(ref["resource"]) : (uri.split("?")[0] ?? uri),
    subresource: ref ? text(ref["subresource"]) : "",
    namespace: ref ? text(ref["namespace"]) : "",
    name: ref ? text(ref["name"]) : "",
    code: typeof code === "number" ? code : 0,
    userAgent: text(event["userAgent"]),
    receivedAt: Date.parse(text(event["requestReceivedTimestamp"])),
    completedAt: Date.parse(text(event["stageTimestamp"])),
  };
}

/** Sums up requests of the same kind, the most frequent first. */
export function countEntries(entries: Iterable<AuditEntry>): AuditCount[] {
  const counts = new Map<string, AuditCount>();
  for (const { user, verb, resource, subresource, code } of entries) {
    const key = JSON.stringify([user, verb, resource, subresource, code]);
    const count = (counts.get(key)?.count ?? 0) + 1;
    counts.set(key, { user, verb, resource, subresource, code, count });
  }
  return [...counts.values()].sort((a, b) => b.count - a.count);
}

function matches(entry: AuditEntry, filter: AuditFilter): boolean {
  const wanted = [
    [filter.user, entry.user],
    [filter.resource, entry.resource],
    [filter.verb, entry.verb],
    [filter.namespace, entry.namespace],
  ] as const;
  return wanted.every(([want, have]) => want === undefined || want === have);
}

/** Whole lines of a file from `offset` on; `end` is the offset behind each. Lines beyond `limit` are not read. */
async function* readLines(
  file: string,
  offset: number,
  limit = Number.POSITIVE_INFINITY,
): AsyncGenerator<{ text: string; end: number }> {
  await using handle = await open(file, "r");
  const chunk = Buffer.alloc(CHUNK_BYTES);
  let rest = Buffer.alloc(0);
  let at = offset;
  while (at + rest.length < limit) {
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, at + rest.length);
    if (bytesRead === 0) return;
    rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    for (let newline = rest.indexOf(10); newline >= 0; newline = rest.indexOf(10)) {
      if (at + newline + 1 > limit) return;
      const text = rest.toString("utf8", 0, newline);
      rest = rest.subarray(newline + 1);
      at += newline + 1;
      yield { text, end: at };
    }
  }
}

async function fileSize(file: string): Promise<number> {
  try {
    await using handle = await open(file, "r");
    return (await handle.stat()).size;
  } catch {
    // Written with the first request.
    return 0;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
