import {
  DATA_TYPE_SESSION,
  DATA_TYPE_UNKNOWN,
  type Heartbeat,
  type LeaseState,
  type QueueStats,
  WORK_STATES,
  type WorkData,
  type WorkItem,
  type WorkPage,
  type WorkState,
} from "./types.ts";

/** A reply of the wrong shape. The message names the field and never its value: replies hold secrets. */
export class ShapeError extends Error {
  constructor(where: string, expected: string) {
    super(`${where} is not ${expected}`);
    this.name = "ShapeError";
  }
}

type Fields = Record<string, unknown>;

export function isRecord(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws ShapeError */
export function parseWorkItem(value: unknown, where = "the work item"): WorkItem {
  const from = record(value, where);
  const secret = optionalText(from, "secret", where);
  return {
    id: text(from, "id", where),
    environment_id: text(from, "environment_id", where),
    state: state(from, where),
    data: parseData(from["data"], `${where}'s data`),
    created_at: time(from, "created_at", where) ?? missing(where, "created_at", "an RFC 3339 time"),
    acknowledged_at: time(from, "acknowledged_at", where),
    latest_heartbeat_at: optionalText(from, "latest_heartbeat_at", where),
    started_at: time(from, "started_at", where),
    stop_requested_at: time(from, "stop_requested_at", where),
    stopped_at: time(from, "stopped_at", where),
    metadata: parseMetadata(from["metadata"], `${where}'s metadata`),
    ...(secret === null ? {} : { secret }),
  };
}

/** A poll's reply: an item, or null for an empty queue. @throws ShapeError */
export function parsePolled(value: unknown): WorkItem | null {
  return value === null ? null : parseWorkItem(value);
}

/** @throws ShapeError */
export function parsePage(value: unknown): WorkPage {
  const from = record(value, "the page");
  if (!Array.isArray(from["data"])) throw new ShapeError("the page's data", "a list");
  return {
    items: from["data"].map((item: unknown, index) => parseWorkItem(item, `the page's item ${index}`)),
    nextPage: optionalText(from, "next_page", "the page"),
  };
}

/** @throws ShapeError */
export function parseStats(value: unknown): QueueStats {
  const where = "the statistics";
  const from = record(value, where);
  return {
    depth: count(from, "depth", where),
    pending: count(from, "pending", where),
    oldest_queued_at: time(from, "oldest_queued_at", where),
    workers_polling: isAbsent(from["workers_polling"]) ? null : count(from, "workers_polling", where),
  };
}

/** @throws ShapeError */
export function parseHeartbeat(value: unknown): Heartbeat {
  const where = "the heartbeat's answer";
  const from = record(value, where);
  const extended = from["lease_extended"];
  if (typeof extended !== "boolean") throw new ShapeError(`${where}'s lease_extended`, "true or false");
  // The published types allow an empty last_heartbeat, for an item that nobody ever beat.
  const last = from["last_heartbeat"];
  if (typeof last !== "string") throw new ShapeError(`${where}'s last_heartbeat`, "a text");
  return {
    last_heartbeat: last,
    lease_extended: extended,
    state: state(from, where),
    ttl_seconds: ttl(from["ttl_seconds"]) ?? missing(where, "ttl_seconds", "a number of seconds"),
  };
}

/** `error.details.current_state` of a 412's body; null when it cannot be read: a refusal is one without it too. */
export function parseRefusal(value: unknown): LeaseState | null {
  let at: unknown = value;
  for (const key of ["error", "details", "current_state"]) at = isRecord(at) ? at[key] : undefined;
  if (!isRecord(at)) return null;
  const known = WORK_STATES.find((name) => name === (at as Fields)["state"]);
  const last = at["last_heartbeat"];
  if (!known || !(isAbsent(last) || typeof last === "string")) return null;
  return { state: known, last_heartbeat: last ? last : null, ttl_seconds: ttl(at["ttl_seconds"]) };
}

/** Milliseconds since the epoch of an RFC 3339 text that was validated above; null stays null. */
export function timestampMs(value: string): number;
export function timestampMs(value: string | null): number | null;
export function timestampMs(value: string | null): number | null {
  return value === null ? null : Date.parse(value);
}

function parseData(value: unknown, where: string): WorkData {
  const from = record(value, where);
  const type = optionalText(from, "type", where) ?? DATA_TYPE_UNKNOWN;
  // What is inside of other types is opaque; a session without its id cannot be served.
  const id = type === DATA_TYPE_SESSION ? text(from, "id", where) : from["id"];
  return { id: typeof id === "string" ? id : "", type };
}

function parseMetadata(value: unknown, where: string): Record<string, string> {
  if (isAbsent(value)) return {};
  const metadata = record(value, where);
  const parsed: Record<string, string> = {};
  for (const [key, entry] of Object.entries(metadata)) {
    if (typeof entry !== "string") throw new ShapeError(where, "a map of texts");
    // defineProperty semantics: a key named __proto__ must not reach the prototype.
    Object.defineProperty(parsed, key, { value: entry, enumerable: true, writable: true, configurable: true });
  }
  return parsed;
}

function record(value: unknown, where: string): Fields {
  if (!isRecord(value)) throw new ShapeError(where, "a JSON object");
  return value;
}

function text(from: Fields, key: string, where: string): string {
  const value = from[key];
  if (typeof value !== "string" || value === "") throw new ShapeError(`${where}'s ${key}`, "a text");
  return value;
}

/** An empty text counts as absent: some servers write it for null. */
function optionalText(from: Fields, key: string, where: string): string | null {
  const value = from[key];
  if (isAbsent(value) || value === "") return null;
  if (typeof value !== "string") throw new ShapeError(`${where}'s ${key}`, "a text or null");
  return value;
}

function time(from: Fields, key: string, where: string): string | null {
  const value = optionalText(from, key, where);
  if (value !== null && Number.isNaN(Date.parse(value))) throw new ShapeError(`${where}'s ${key}`, "an RFC 3339 time");
  return value;
}

function state(from: Fields, where: string): WorkState {
  const known = WORK_STATES.find((name) => name === from["state"]);
  return known ?? missing(where, "state", `one of ${WORK_STATES.join(", ")}`);
}

function count(from: Fields, key: string, where: string): number {
  const value = from[key];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new ShapeError(`${where}'s ${key}`, "a count");
  }
  return value;
}

function ttl(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : null;
}

function missing(where: string, key: string, expected: string): never {
  throw new ShapeError(`${where}'s ${key}`, expected);
}

function isAbsent(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}
