import { isRecord } from "../core/json.ts";
import {
  DATA_TYPE_SESSION,
  DATA_TYPE_UNKNOWN,
  type Heartbeat,
  type LeaseState,
  type QueueStats,
  type UnreadableItem,
  WORK_STATES,
  type WorkData,
  type WorkItem,
  type WorkPage,
  type WorkState,
} from "./types.ts";

/** A reply of the wrong shape. The message names the field but never its value, because replies contain secrets. */
export class ShapeError extends Error {
  readonly where: string;
  readonly expected: string;

  constructor(where: string, expected: string) {
    super(`${where} is not ${expected}`);
    this.name = "ShapeError";
    this.where = where;
    this.expected = expected;
  }
}

/** The reply is of this API, but its item is malformed. */
export class ItemShapeError extends ShapeError {
  readonly id: string;

  constructor(id: string, { where, expected }: ShapeError) {
    super(where, expected);
    this.name = "ItemShapeError";
    this.id = id;
  }
}

type Fields = Record<string, unknown>;

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
    metadata: parseMetadata(from["metadata"]),
    ...(secret === null ? {} : { secret }),
  };
}

/**
 * Parses a poll's reply: an item, or null for an empty queue. An item that can't be served is refused here, before
 * anything is done for it. Its ids end up in paths, Secrets and environment variables, and a container can't start if
 * one of these contains a NUL.
 * @throws ShapeError; ItemShapeError if the reply is an item
 */
export function parsePolled(value: unknown): WorkItem | null {
  if (value === null) return null;
  try {
    return servable(parseWorkItem(value));
  } catch (error) {
    const id = idOf(value);
    if (id === null || !(error instanceof ShapeError)) throw error;
    throw new ItemShapeError(id, error);
  }
}

function servable(item: WorkItem): WorkItem {
  id(item.id, "the work item's id");
  if (item.data.type === DATA_TYPE_SESSION) id(item.data.id, "the work item's data's id");
  const { secret = "" } = item;
  if (secret.length > MAX_SECRET || secret.includes("\u0000")) {
    const deliverable = `one that a container can be given (at most ${MAX_SECRET} characters, no NUL)`;
    throw new ShapeError("the work item's secret", deliverable);
  }
  return item;
}

/**
 * Parses a page of items.
 * @param wanted the ids of the items that the caller needs; other items with an id are left out unchecked. Default: all
 * @throws ShapeError
 */
export function parsePage(value: unknown, wanted?: ReadonlySet<string>): WorkPage {
  const from = record(value, "the page");
  if (!Array.isArray(from["data"])) throw new ShapeError("the page's data", "a list");
  const items: WorkItem[] = [];
  const unreadable: UnreadableItem[] = [];
  for (const [index, value] of from["data"].entries()) {
    const id = idOf(value);
    if (wanted && id !== null && !wanted.has(id)) continue;
    try {
      items.push(parseWorkItem(value, `the page's item ${index}`));
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error;
      unreadable.push({ id, state: stateOf(value), why: error.message });
    }
  }
  return { items, unreadable, nextPage: optionalText(from, "next_page", "the page") };
}

function idOf(value: unknown): string | null {
  const id = isRecord(value) ? value["id"] : null;
  return typeof id === "string" && id !== "" ? id : null;
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
  // The published types allow an empty last_heartbeat, for an item that never got a heartbeat.
  const last = from["last_heartbeat"];
  if (typeof last !== "string" || !last.isWellFormed()) throw new ShapeError(`${where}'s last_heartbeat`, "a text");
  return {
    last_heartbeat: last,
    lease_extended: extended,
    state: state(from, where),
    ttl_seconds: ttl(from["ttl_seconds"]) ?? missing(where, "ttl_seconds", "a number of seconds"),
  };
}

/** Parses `error.details.current_state` of a 412's body. Null if that fails: the 412 counts as a refusal anyway. */
export function parseRefusal(value: unknown): LeaseState | null {
  let at: unknown = value;
  for (const key of ["error", "details", "current_state"]) at = isRecord(at) ? at[key] : undefined;
  if (!isRecord(at)) return null;
  const known = WORK_STATES.find((name) => name === (at as Fields)["state"]);
  const last = at["last_heartbeat"];
  if (!known || !(isAbsent(last) || (typeof last === "string" && last.isWellFormed()))) return null;
  return { state: known, last_heartbeat: last ? last : null, ttl_seconds: ttl(at["ttl_seconds"]) };
}

/**
 * A container with a longer environment variable does not start: Linux limits one to 128 KiB including its name
 * (MAX_ARG_STRLEN, execve(2)). Secrets have some hundred characters.
 */
const MAX_SECRET = 120_000;
/** Longer than any id. */
const MAX_ID = 1_024;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what no id has
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

function id(value: string, where: string): void {
  if (value.length > MAX_ID || CONTROL.test(value) || value === "." || value === "..") {
    throw new ShapeError(where, `an id (at most ${MAX_ID} characters, no control characters)`);
  }
}

/** Milliseconds since the epoch of an RFC 3339 text that was validated here; null stays null. */
export function timestampMs(value: string): number;
export function timestampMs(value: string | null): number | null;
export function timestampMs(value: string | null): number | null {
  return value === null ? null : Date.parse(value);
}

function parseData(value: unknown, where: string): WorkData {
  const from = record(value, where);
  const type = optionalText(from, "type", where) ?? DATA_TYPE_UNKNOWN;
  // The data of other types is opaque. A session without an id can't be served.
  const id = type === DATA_TYPE_SESSION ? text(from, "id", where) : from["id"];
  return { id: typeof id === "string" ? id : "", type };
}

/** Nothing depends on metadata, so entries that are not text are dropped instead of refusing the item. */
function parseMetadata(value: unknown): Record<string, string> {
  const parsed: Record<string, string> = {};
  for (const [key, entry] of Object.entries(isRecord(value) ? value : {})) {
    if (typeof entry !== "string") continue;
    // A plain assignment of the key __proto__ would change the prototype.
    Object.defineProperty(parsed, key, { value: entry, enumerable: true, writable: true, configurable: true });
  }
  return parsed;
}

function record(value: unknown, where: string): Fields {
  if (!isRecord(value)) throw new ShapeError(where, "a JSON object");
  return value;
}

function text(from: Fields, key: string, where: string): string {
  return optionalText(from, key, where) ?? missing(where, key, "a text");
}

/** An empty text counts as absent, because some servers send it for null. */
function optionalText(from: Fields, key: string, where: string): string | null {
  const value = from[key];
  if (isAbsent(value) || value === "") return null;
  if (typeof value !== "string") throw new ShapeError(`${where}'s ${key}`, "a text or null");
  // Half a surrogate pair: it can't be encoded in a URL, and the API server would store a different text.
  if (!value.isWellFormed()) throw new ShapeError(`${where}'s ${key}`, "a well-formed text");
  return value;
}

/** RFC 3339, 5.6, with at most nine digits of a second, which is also what the API server accepts. */
const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i;
/** The positions of day and hour in such a time. */
const DAY = [8, 10] as const;
const HOUR = [11, 13] as const;
const SHORTEST_MONTH = 28;

function time(from: Fields, key: string, where: string): string | null {
  const value = optionalText(from, key, where);
  if (value !== null && !isTime(value)) throw new ShapeError(`${where}'s ${key}`, "an RFC 3339 time");
  return value;
}

/**
 * Date.parse alone accepts "5" as a day in May, February 30 as a day in March, and 24:00 as the next day. Lists contain
 * many times, so only days after the 28th are checked against the calendar.
 */
function isTime(value: string): boolean {
  if (!RFC_3339.test(value) || Number.isNaN(Date.parse(value))) return false;
  const day = Number(value.slice(...DAY));
  return value.slice(...HOUR) !== "24" && (day <= SHORTEST_MONTH || day <= daysIn(value));
}

function daysIn(value: string): number {
  const [year = 0, month = 0] = value.split("-", 2).map(Number);
  // The day before the first of the next month. Date.UTC would map years below 100 to 19xx; setUTCFullYear does not.
  const last = new Date(0);
  last.setUTCFullYear(year, month, 0);
  return last.getUTCDate();
}

function stateOf(value: unknown): WorkState | null {
  const state = isRecord(value) ? value["state"] : null;
  return WORK_STATES.find((name) => name === state) ?? null;
}

function state(from: Fields, where: string): WorkState {
  return stateOf(from) ?? missing(where, "state", `one of ${WORK_STATES.join(", ")}`);
}

function count(from: Fields, key: string, where: string): number {
  const value = from[key];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new ShapeError(`${where}'s ${key}`, "a count");
  }
  return value;
}

/** Far above any TTL that Berth requests. Assuming a shorter lease than the real one is harmless. */
const MAX_TTL_SECONDS = 86_400;

function ttl(value: unknown): number | null {
  const isTtl = typeof value === "number" && Number.isFinite(value) && value >= 0;
  return isTtl ? Math.min(value, MAX_TTL_SECONDS) : null;
}

function missing(where: string, key: string, expected: string): never {
  throw new ShapeError(`${where}'s ${key}`, expected);
}

function isAbsent(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}
