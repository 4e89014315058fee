import type { IncomingHttpHeaders } from "node:http";
import type { Caller, CredentialKind } from "./caller.ts";
import type { CallName } from "./faults.ts";

/** What a path of the API refers to. */
export interface Route {
  readonly call: CallName;
  readonly environmentId: string | undefined;
  readonly workId: string | undefined;
  readonly sessionId: string | undefined;
}

/** A request after the simulator read it, authenticated it, and checked it against its route. */
export interface ApiRequest extends Route {
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  readonly body: Record<string, unknown> | undefined;
  readonly caller: Caller;
  /** An injected fault wants the poll to give out an item that another client holds. */
  readonly duplicateOffer: boolean;
  /** Aborts when the client disconnects. */
  readonly signal: AbortSignal;
}

/** The credentials that each call accepts, from the Work API's reference and its measured behavior. */
export const CREDENTIALS: Readonly<Record<CallName, readonly CredentialKind[]>> = {
  poll: ["environment-key"],
  ack: ["environment-key"],
  heartbeat: ["environment-key", "sessions-token"],
  stop: ["environment-key", "sessions-token", "api-key"],
  stats: ["environment-key", "api-key"],
  list: ["environment-key"],
  retrieve: ["api-key"],
  update: ["api-key"],
  session: ["environment-key", "sessions-token", "api-key"],
  "events-list": ["environment-key", "sessions-token", "api-key"],
  "events-stream": ["environment-key", "sessions-token", "api-key"],
  "events-send": ["environment-key", "sessions-token", "api-key"],
};

/** @returns undefined if the API has no such path or method */
export function routeOf(method: string, path: string): Route | undefined {
  const parts = pathParts(path);
  if (parts[0] !== "v1" || parts.some((part) => part === "")) return undefined;
  if (parts[1] === "environments" && parts[3] === "work") return workRoute(method, parts[2], parts.slice(4));
  if (parts[1] === "sessions") return sessionRoute(method, parts[2], parts.slice(3).join("/"));
  return undefined;
}

/** Splits a path and decodes its parts. Returns an empty list if the path is malformed. */
export function pathParts(path: string): string[] {
  try {
    return path.split("/").slice(1).map(decodeURIComponent);
  } catch {
    return [];
  }
}

function workRoute(method: string, environmentId: string | undefined, rest: readonly string[]): Route | undefined {
  const route = (call: CallName, workId?: string) => ({ call, environmentId, workId, sessionId: undefined });
  const [first, action] = rest;
  if (rest.length === 0) return method === "GET" ? route("list") : undefined;
  if (rest.length === 1 && first === "poll") return method === "GET" ? route("poll") : undefined;
  if (rest.length === 1 && first === "stats") return method === "GET" ? route("stats") : undefined;
  if (rest.length === 1 && method === "GET") return route("retrieve", first);
  if (method !== "POST") return undefined;
  if (rest.length === 1) return route("update", first);
  if (rest.length === 2 && (action === "ack" || action === "heartbeat" || action === "stop"))
    return route(action, first);
  return undefined;
}

function sessionRoute(method: string, sessionId: string | undefined, rest: string): Route | undefined {
  if (sessionId === undefined) return undefined;
  const route = (call: CallName) => ({ call, environmentId: undefined, workId: undefined, sessionId });
  switch (`${method} ${rest}`) {
    case "GET ":
      return route("session");
    case "GET events":
      return route("events-list");
    case "GET events/stream":
      return route("events-stream");
    case "POST events":
      return route("events-send");
    default:
      return undefined;
  }
}

/** Reads a whole number from the query. Returns undefined if it's absent and NaN if it isn't a whole number. */
export function integerOf(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  return /^-?\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
}
