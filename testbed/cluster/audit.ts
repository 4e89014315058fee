import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { stringify } from "yaml";

/**
 * Records who requested what, without bodies, once per request when it's complete. A watch is complete when it ends, so
 * an open watch isn't recorded. Health probes aren't recorded either.
 */
export const AUDIT_POLICY = stringify({
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived", "ResponseStarted"],
  omitManagedFields: true,
  rules: [{ level: "None", nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"] }, { level: "Metadata" }],
});

/** One request, with the fields that counts need. */
export interface AuditEntry {
  /** The user whose permissions applied: the impersonated user if there is one. */
  readonly user: string;
  /**
   * get, list, watch, create, update, patch, delete, or deletecollection. For other paths, the HTTP method in lower
   * case.
   */
  readonly verb: string;
  /** The plural resource, or the path if the request has no resource. */
  readonly resource: string;
  /** Empty if there is none. */
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** The HTTP status of the answer, or 0 if there was none. */
  readonly code: number;
  readonly userAgent: string;
  /** When the request arrived, in milliseconds since the epoch. */
  readonly receivedAt: number;
  /** When the answer was complete, in milliseconds since the epoch. */
  readonly completedAt: number;
}

/** The number of requests of one kind. */
export interface AuditCount {
  readonly user: string;
  readonly verb: string;
  readonly resource: string;
  readonly subresource: string;
  readonly code: number;
  readonly count: number;
}

/** A position in the log. Requests that were complete earlier are before it. */
export interface AuditMark {
  readonly offset: number;
}

/** Selects requests. Omitted fields match everything. */
export interface AuditFilter {
  readonly since?: AuditMark;
  readonly user?: string;
  readonly resource?: string;
  readonly verb?: string;
  readonly namespace?: string;
}

/** A path that the API server answers and that no other client requests. The query distinguishes the fences. */
const FENCE_PATH = "/version?audit-fence=";
/** The API server writes the line of a request right after its answer, so a longer wait is a fault. */
const FENCE_TIMEOUT_MS = 10_000;
const FENCE_POLL_MS = 5;
const CHUNK_BYTES = 1 << 20;

/** Reads the audit log of a running API server. */
export class AuditLog {
  readonly file: string;
  readonly #get: (path: string) => Promise<unknown>;

  /** @param get sends a GET to the API server, as a user that may request its version */
  constructor(file: string, get: (path: string) => Promise<unknown>) {
    this.file = file;
    this.#get = get;
  }

  /** Returns a mark for `since`. Everything that was answered before the call is before the mark. */
  async mark(): Promise<AuditMark> {
    return { offset: await this.#fence() };
  }

  /** Counts the requests that were answered before this call, the most frequent first. */
  async counts(filter: AuditFilter = {}): Promise<AuditCount[]> {
    return countEntries(await this.entries(filter));
  }

  /** Returns the number of matching requests. */
  async total(filter: AuditFilter = {}): Promise<number> {
    return (await this.entries(filter)).length;
  }

  /** Returns the requests that were answered before this call, in the order of the log. */
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
   * The API server may write the line of a request shortly after the client read the answer. To get past that, this
   * method sends a unique request and waits for its line: the lines of earlier requests come before it. Returns the
   * offset after the line.
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
      if (performance.now() > deadline) throw new Error(`${this.file} does not contain a request that was answered`);
      await delay(FENCE_POLL_MS);
    }
  }
}

/** Parses one line of the log. Returns undefined for broken lines and fences, which aren't client requests. */
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

/** Counts requests of the same kind, the most frequent first. */
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

/**
 * Reads whole lines of a file from `offset` on. `end` is the offset after each line. Doesn't read lines beyond `limit`.
 */
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
    // The API server creates the file with the first request.
    return 0;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
