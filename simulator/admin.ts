import type { IncomingMessage } from "node:http";
import { z } from "zod";
import { pathParts } from "./api-request.ts";
import { type ArrivalsInput, arrivalsSchema, type EnqueueInput, enqueueSchema } from "./arrivals.ts";
import { forbidden, invalidRequest, notFound, unauthenticated } from "./errors.ts";
import { type FaultInput, faultSchema } from "./faults.ts";
import { json, noContent, type Reply, readJson } from "./http.ts";
import { type ScriptInput, scriptSchema } from "./script.ts";
import type { AdminHandler } from "./server.ts";
import type { Violation } from "./violations.ts";
import { type WebhookInput, webhookSchema } from "./webhooks.ts";

/** What the admin API needs of the simulator. It only writes `unknown` values as JSON. */
export interface AdminTarget {
  /** The simulator's clock, which GET clock reads. */
  readonly clock: { now(): number; readonly scale: number };
  /** The switches in effect. */
  readonly switches: unknown;
  /** The newest webhook deliveries. */
  readonly deliveries: unknown;
  /** Breaches of the protocol. */
  readonly violations: readonly Violation[];
  /** Breaches that a correct client may cause. */
  readonly excused: readonly Violation[];

  /** Returns a dump of everything, without credentials. */
  state(): unknown;
  /** Returns the summary of what happened. */
  report(): unknown;
  /** Returns the newest requests, of one environment if an id is given. */
  requests(environmentId?: string): unknown;
  /** Returns every credential that was issued. @throws {RangeError} the simulator doesn't remember credentials */
  credentials(): unknown;
  /** Forgets all violations, the excused ones too. */
  clearViolations(): void;

  /** Creates an environment. @throws {RangeError} the id is taken */
  createEnvironment(options: { id?: string; key?: string; workspaceId?: string; ttlSeconds?: number }): unknown;
  /** Returns the environment's key, or an empty string if the environment doesn't exist. */
  environmentKey(environmentId: string): string;
  /** Replaces the environment's key and returns the new one. */
  rotateKey(environmentId: string, key?: string): string;
  /** Returns the environment's queue statistics. */
  stats(environmentId: string): unknown;
  /** Returns the number of long polls that wait for work. */
  pollsWaiting(environmentId: string): number;

  /** Queues a work item and returns its record. */
  enqueue(environmentId: string, input: EnqueueInput): unknown;
  /** Claims an item and returns the environment variables of its worker, or undefined if the queue is empty. */
  claim(environmentId: string): Promise<Record<string, string> | undefined>;
  /** Starts to queue items over time. */
  arrivals(environmentId: string, plan: ArrivalsInput): { readonly id: string };
  /** Stops arrivals and returns false if they have already ended. */
  stopArrivals(id: string): boolean;
  /** Returns the records of all items, of one environment if an id is given. */
  items(environmentId?: string): unknown;
  /** Returns the record of one item. */
  item(workId: string): unknown;
  /** Stops an item as a user would. */
  stopItem(workId: string, options: { force?: boolean }): void;
  /** Makes the sessions tokens of an item invalid. */
  revokeTokens(workId: string): void;

  /** Returns the records of all sessions, of one environment if an id is given. */
  sessions(environmentId?: string): unknown;
  /** Returns the record of one session. */
  session(sessionId: string): unknown;
  /** Deletes a session and leaves its items. */
  deleteSession(sessionId: string): void;
  /** Sends a user's message to a session. */
  sendMessage(sessionId: string, script: ScriptInput): void;
  /** Interrupts what the session does. */
  interrupt(sessionId: string): void;
  /** Ends a session. */
  terminateSession(sessionId: string): void;
  /** Allows or denies a tool call that waits for confirmation, and returns false if no such call waits. */
  confirm(sessionId: string, toolUseId: string, allow: boolean): boolean;

  /** Sets where webhooks are sent; undefined turns them off. */
  sendWebhooks(to: WebhookInput | undefined): void;
  /** Adds a fault and returns its record. */
  inject(fault: FaultInput): unknown;
  /** Returns the records of all faults. */
  faults(): unknown;
  /** Removes one fault, or all of them if no id is given. */
  clearFaults(id?: string): void;
  /** Changes switches and returns all of them. @throws {z.ZodError} */
  setSwitches(switches: Record<string, unknown>): unknown;
  /** Changes how fast the simulator's clock runs. */
  setScale(scale: number): void;
}

type Body = Record<string, unknown> | undefined;
/** What a request asks for in its headers and its query. */
interface RequestOptions {
  readonly accept: string | undefined;
  /** Limits the answer to one environment. */
  readonly environmentId: string | undefined;
}

type Handler = (
  simulator: AdminTarget,
  ids: readonly string[],
  body: Body,
  options: RequestOptions,
) => Reply | Promise<Reply>;

/** A second header for the token, because the API server's proxy to a Pod strips Authorization. */
const TOKEN_HEADER = "x-simulator-token";

const environmentSchema = z.strictObject({
  id: z.string().min(1).optional(),
  key: z.string().min(1).optional(),
  workspaceId: z.string().optional(),
  ttlSeconds: z.number().positive().optional(),
});
const stopSchema = z.strictObject({ force: z.boolean().default(false) });
const confirmSchema = z.strictObject({ toolUseId: z.string(), allow: z.boolean() });
const clockSchema = z.strictObject({ scale: z.number().positive() });
const keySchema = z.strictObject({ key: z.string().min(1).optional() });

const ok = (body: unknown) => json(200, body);

/** Handlers by `METHOD path`, with `*` for an id. docs/simulator/api.md describes each of them. */
export const ADMIN_ROUTES: Readonly<Record<string, Handler>> = {
  "GET state": (simulator) => ok(simulator.state()),
  "GET report": (simulator) => ok(simulator.report()),
  "GET requests": (simulator, _ids, _body, { environmentId }) => ok(simulator.requests(environmentId)),
  "GET credentials": (simulator) => ok(simulator.credentials()),
  "GET violations": (simulator, _ids, _body, { environmentId }) =>
    ok({
      violations: inEnvironment(environmentId, simulator.violations),
      excused: inEnvironment(environmentId, simulator.excused),
    }),
  "DELETE violations": (simulator) => done(() => simulator.clearViolations()),
  "POST environments": (simulator, _ids, body) =>
    json(201, simulator.createEnvironment(defined(parse(environmentSchema, body)))),
  "GET environments/*": (simulator, [id = ""]) =>
    ok({ id, stats: simulator.stats(id), pollsWaiting: simulator.pollsWaiting(id) }),
  "GET environments/*/key": (simulator, [id = ""]) => ok({ key: keyOf(simulator, id) }),
  "POST environments/*/items": (simulator, [id = ""], body) =>
    json(201, simulator.enqueue(id, parse(enqueueSchema, body))),
  "POST environments/*/claim": claim,
  "POST environments/*/arrivals": (simulator, [id = ""], body) =>
    json(201, { id: simulator.arrivals(id, parse(arrivalsSchema, body)).id }),
  "POST environments/*/key": (simulator, [id = ""], body) =>
    ok({ key: simulator.rotateKey(id, parse(keySchema, body).key) }),
  "DELETE arrivals/*": (simulator, [id = ""]) => {
    if (!simulator.stopArrivals(id)) throw notFound(`arrivals ${id}`);
    return noContent;
  },
  "GET items": (simulator, _ids, _body, { environmentId }) => ok(simulator.items(environmentId)),
  "GET items/*": (simulator, [id = ""]) => ok(simulator.item(id)),
  "POST items/*/stop": (simulator, [id = ""], body) => done(() => simulator.stopItem(id, parse(stopSchema, body))),
  "POST items/*/revoke-tokens": (simulator, [id = ""]) => done(() => simulator.revokeTokens(id)),
  "GET sessions": (simulator, _ids, _body, { environmentId }) => ok(simulator.sessions(environmentId)),
  "GET sessions/*": (simulator, [id = ""]) => ok(simulator.session(id)),
  "DELETE sessions/*": (simulator, [id = ""]) => done(() => simulator.deleteSession(id)),
  "POST sessions/*/messages": (simulator, [id = ""], body) =>
    done(() => simulator.sendMessage(id, parse(scriptSchema, body))),
  "POST sessions/*/interrupt": (simulator, [id = ""]) => done(() => simulator.interrupt(id)),
  "POST sessions/*/terminate": (simulator, [id = ""]) => done(() => simulator.terminateSession(id)),
  "POST sessions/*/confirm": (simulator, [id = ""], body) => {
    const { toolUseId, allow } = parse(confirmSchema, body);
    if (!simulator.confirm(id, toolUseId, allow)) throw notFound(`waiting call ${toolUseId}`);
    return noContent;
  },
  "GET webhooks": (simulator) => ok(simulator.deliveries),
  "PUT webhooks": (simulator, _ids, body) => done(() => simulator.sendWebhooks(parse(webhookSchema, body))),
  "DELETE webhooks": (simulator) => done(() => simulator.sendWebhooks(undefined)),
  "GET faults": (simulator) => ok(simulator.faults()),
  "POST faults": (simulator, _ids, body) => json(201, simulator.inject(parse(faultSchema, body))),
  "DELETE faults": (simulator) => done(() => simulator.clearFaults()),
  "DELETE faults/*": (simulator, [id = ""]) => done(() => simulator.clearFaults(id)),
  "GET switches": (simulator) => ok(simulator.switches),
  "PATCH switches": (simulator, _ids, body) => ok(simulator.setSwitches(body ?? {})),
  "GET clock": (simulator) => ok({ now: simulator.clock.now(), scale: simulator.clock.scale }),
  "PATCH clock": (simulator, _ids, body) => {
    simulator.setScale(parse(clockSchema, body).scale);
    return ok({ now: simulator.clock.now(), scale: simulator.clock.scale });
  },
};

/** Answers in JSON, or in lines for `docker run --env-file` if the client accepts plain text. */
async function claim(
  simulator: AdminTarget,
  [id = ""]: readonly string[],
  _body: Body,
  { accept }: RequestOptions,
): Promise<Reply> {
  const variables = await simulator.claim(id);
  if (!variables) return noContent;
  if (accept?.startsWith("text/plain") !== true) return ok(variables);
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}\n`);
  return { status: 200, text: lines.join("") };
}

/** @throws {ApiError} 404 */
function keyOf(simulator: AdminTarget, environmentId: string): string {
  const key = simulator.environmentKey(environmentId);
  if (key === "") throw notFound(`environment ${environmentId}`);
  return key;
}

/** Returns the violations of one environment, or all of them if no id is given. */
function inEnvironment(environmentId: string | undefined, violations: readonly Violation[]): Violation[] {
  return violations.filter((violation) => (environmentId ?? violation.environmentId) === violation.environmentId);
}

function optionsOf(request: IncomingMessage): RequestOptions {
  const query = new URLSearchParams((request.url ?? "").split("?")[1] ?? "");
  return { accept: request.headers.accept, environmentId: query.get("environmentId") ?? undefined };
}

/** Finds the handler of a path. The second part of a path is always an id. */
function match(method: string, path: string): { handler: Handler; ids: string[] } | undefined {
  const parts = pathParts(path).slice(1);
  const ids = parts.length > 1 ? [parts[1] ?? ""] : [];
  const pattern = parts.map((part, index) => (index === 1 ? "*" : part)).join("/");
  const handler = ADMIN_ROUTES[`${method} ${pattern}`];
  return handler && { handler, ids };
}

/** Serves the methods of `Simulator` over HTTP. */
export function createAdmin(simulator: () => AdminTarget, token: string | undefined): AdminHandler {
  return async (request, path) => {
    guard(request, token);
    const found = match(request.method ?? "GET", path);
    if (!found) return undefined;
    const body = await readJson(request);
    try {
      return await found.handler(simulator(), found.ids, body, optionsOf(request));
    } catch (error) {
      if (error instanceof z.ZodError) throw invalidRequest(z.prettifyError(error));
      if (error instanceof RangeError) throw invalidRequest(error.message);
      throw error;
    }
  };
}

/** @throws {ApiError} 401, 403 */
function guard(request: IncomingMessage, token: string | undefined): void {
  // A web page in a user's browser can also reach loopback, but its requests always carry this header.
  if (request.headers.origin !== undefined) throw forbidden("the admin API does not accept requests from web pages");
  if (token !== undefined) {
    const { authorization, [TOKEN_HEADER]: own } = request.headers;
    if (authorization !== `Bearer ${token}` && own !== token) throw unauthenticated();
    return;
  }
  if (!isLoopback(request.socket.remoteAddress ?? ""))
    throw forbidden("without an admin token, the admin API accepts requests from this machine only");
}

function isLoopback(address: string): boolean {
  return address === "::1" || /^(::ffff:)?127\./.test(address);
}

function parse<T extends z.ZodType>(schema: T, body: Body): z.output<T> {
  return schema.parse(body ?? {});
}

/** Runs `act` and answers without a body. */
function done(act: () => void): Reply {
  act();
  return noContent;
}

/** Removes keys whose value is undefined, as exact optional properties require. */
function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as never;
}
