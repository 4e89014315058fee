import { type ApiRequest, integerOf } from "./api-request.ts";
import { partyOf } from "./caller.ts";
import { type Environment, reclaimMsOf } from "./environment.ts";
import { type ApiError, invalidRequest } from "./errors.ts";
import { json, noContent, type Reply } from "./http.ts";
import { shuffleRank } from "./ids.ts";
import { type WorkItem, workBody } from "./item.ts";
import type { Found } from "./queue.ts";
import { BLOCK_MS, type Limits, METADATA, type Switches } from "./switches.ts";

/** What the calls of the Work API need in addition to the environment. */
export interface WorkApiContext {
  readonly switches: Switches;
  readonly limits: Limits;
  /** Returns the secret to send with an offer, or null if the item has none. The secret is stored nowhere else. */
  secretFor(found: Found): string | null;
  /** Records a malformed poll as a violation, separately from other bad requests. */
  badPoll(details: string): ApiError;
}

type Handler = (environment: Environment, request: ApiRequest, context: WorkApiContext) => Reply | Promise<Reply>;

/** The eight calls of the Work API. */
export const WORK_API: Readonly<Record<string, Handler>> = {
  poll,
  ack,
  heartbeat,
  stop,
  stats: (environment) => json(200, environment.stats()),
  list,
  retrieve: (environment, request, context) => json(200, show(environment.item(workIdOf(request)), context)),
  update,
};

async function poll(environment: Environment, request: ApiRequest, context: WorkApiContext): Promise<Reply> {
  const blockMs = integerOf(request.query, "block_ms");
  if (blockMs !== undefined && !(blockMs >= BLOCK_MS.min && blockMs <= BLOCK_MS.max)) {
    throw context.badPoll(`block_ms must be between ${BLOCK_MS.min} and ${BLOCK_MS.max}`);
  }
  const reclaimMs = reclaimMsOf(integerOf(request.query, "reclaim_older_than_ms"));
  if (!(reclaimMs >= 1)) throw context.badPoll("reclaim_older_than_ms must be a whole number, 1 or more");
  const found = await environment.poll({
    workerId: request.caller.workerId,
    reclaimMs,
    blockMs,
    duplicate: request.duplicateOffer,
    signal: request.signal,
  });
  if (!found) return json(200, null);
  return json(200, workBody(found.item, context.secretFor(found), reformats(context)));
}

function ack(environment: Environment, request: ApiRequest, context: WorkApiContext): Reply {
  return json(200, show(environment.ack(workIdOf(request), request.caller), context));
}

function heartbeat(environment: Environment, request: ApiRequest): Reply {
  const desired = integerOf(request.query, "desired_ttl_seconds");
  if (desired !== undefined && !(desired >= 0)) throw invalidRequest("desired_ttl_seconds must be a whole number");
  const { caller } = request;
  const { item, body } = environment.heartbeat(workIdOf(request), caller, {
    expected: request.query.get("expected_last_heartbeat") ?? undefined,
    // The reference's own example sends 0, which means no preference.
    desiredTtlSeconds: desired === 0 ? undefined : desired,
  });
  const { generation } = item;
  return {
    status: 200,
    body,
    onAnswered: () => {
      if (body.state === "stopped") item.knowsStopped.add(partyOf(caller));
      if (body.state === "active" && item.generation === generation && caller.credential.kind === "sessions-token") {
        item.firstTokenBeatAnswered ??= partyOf(caller);
      }
    },
  };
}

function stop(environment: Environment, request: ApiRequest, context: WorkApiContext): Reply {
  const force = request.body?.force ?? false;
  if (typeof force !== "boolean") throw invalidRequest("force must be a boolean");
  const item = environment.stop(workIdOf(request), request.caller, force);
  const onAnswered = () => {
    if (item.state === "stopped") item.knowsStopped.add(partyOf(request.caller));
  };
  return { ...(context.switches.stopReply === "work" ? json(200, show(item, context)) : noContent), onAnswered };
}

function update(environment: Environment, request: ApiRequest, context: WorkApiContext): Reply {
  const item = environment.item(workIdOf(request));
  const patch = request.body?.metadata ?? {};
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) {
    throw invalidRequest("metadata must be an object");
  }
  const metadata = new Map(Object.entries(item.metadata));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) metadata.delete(key);
    else if (typeof value === "string") metadata.set(key, value);
    else throw invalidRequest(`metadata.${key} must be a string or null`);
  }
  checkMetadata(metadata);
  item.metadata = Object.fromEntries(metadata);
  return json(200, show(item, context));
}

/** The platform's limits for metadata of any object. @throws {ApiError} 400 */
function checkMetadata(metadata: ReadonlyMap<string, string>): void {
  const { pairs, keyLength, valueLength } = METADATA;
  if (metadata.size > pairs) throw invalidRequest(`metadata must have at most ${pairs} pairs`);
  for (const [key, value] of metadata) {
    if (key.length === 0 || key.length > keyLength) {
      throw invalidRequest(`each key of metadata must have 1 to ${keyLength} characters`);
    }
    if (value.length > valueLength)
      throw invalidRequest(`each value of metadata must have at most ${valueLength} characters`);
  }
}

function list(environment: Environment, request: ApiRequest, context: WorkApiContext): Reply {
  const { limits } = context;
  const limit = integerOf(request.query, "limit") ?? limits.listPageSize;
  if (!(limit >= 1 && limit <= limits.listMaxPageSize)) {
    throw invalidRequest(`limit must be between 1 and ${limits.listMaxPageSize}`);
  }
  const rank = rankOf(context.switches);
  const after = cursorOf(request.query.get("page"));
  const ordered = environment.listed.sort((a, b) => rank(a) - rank(b) || a.seq - b.seq);
  const rest = after === undefined ? ordered : ordered.filter((item) => isAfter(item, rank, after));
  const data = rest.slice(0, limit);
  const last = data.at(-1);
  const nextPage =
    last && rest.length > data.length ? Buffer.from(`${rank(last)}:${last.seq}`).toString("base64url") : null;
  return json(200, { data: data.map((item) => show(item, context)), next_page: nextPage });
}

function rankOf(switches: Switches): (item: WorkItem) => number {
  switch (switches.listOrder) {
    case "newest":
      return (item) => -item.seq;
    case "oldest":
      return (item) => item.seq;
    case "shuffled":
      return (item) => shuffleRank(item.id);
  }
}

interface Cursor {
  readonly rank: number;
  readonly seq: number;
}

function cursorOf(page: string | null): Cursor | undefined {
  if (page === null) return undefined;
  const match = /^(-?\d+):(\d+)$/.exec(Buffer.from(page, "base64url").toString("utf8"));
  if (!match) throw invalidRequest("page is not a cursor of this list");
  return { rank: Number(match[1]), seq: Number(match[2]) };
}

function isAfter(item: WorkItem, rank: (item: WorkItem) => number, cursor: Cursor): boolean {
  const own = rank(item);
  return own > cursor.rank || (own === cursor.rank && item.seq > cursor.seq);
}

function show(item: WorkItem, context: WorkApiContext): Record<string, unknown> {
  return workBody(item, null, reformats(context));
}

function reformats(context: WorkApiContext): boolean {
  return context.switches.listedHeartbeat === "reformatted";
}

function workIdOf(request: ApiRequest): string {
  if (request.workId === undefined) throw invalidRequest("the path has no work item id");
  return request.workId;
}
