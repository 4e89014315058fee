import type { IncomingMessage } from "node:http";
import { z } from "zod";
import { pathParts } from "./api-request.ts";
import { arrivalsSchema, enqueueSchema } from "./arrivals.ts";
import { forbidden, invalidRequest, notFound, unauthenticated } from "./errors.ts";
import { faultSchema } from "./faults.ts";
import { json, noContent, type Reply, readJson } from "./http.ts";
import { scriptSchema } from "./script.ts";
import type { AdminHandler } from "./server.ts";
import type { Simulator } from "./simulator.ts";
import type { Violation } from "./violations.ts";
import { webhookSchema } from "./webhooks.ts";

type Body = Record<string, unknown> | undefined;
/** What a request asks for beside its path and its body. */
interface Wanted {
  readonly accept: string | undefined;
  /** Of one environment only. */
  readonly environmentId: string | undefined;
}

type Handler = (simulator: Simulator, ids: readonly string[], body: Body, wanted: Wanted) => Reply | Promise<Reply>;

/** The API server's proxy to a Pod strips Authorization: the token may come in a header of its own. */
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

/** `METHOD path` with `*` for an id; each is in docs/simulator.md. */
export const ADMIN_ROUTES: Readonly<Record<string, Handler>> = {
  "GET state": (simulator) => ok(simulator.state()),
  "GET report": (simulator) => ok(simulator.report()),
  "GET requests": (simulator, _ids, _body, { environmentId }) => ok(simulator.requests(environmentId)),
  "GET credentials": (simulator) => ok(simulator.credentials()),
  "GET violations": (simulator, _ids, _body, { environmentId }) =>
    ok({ violations: of(environmentId, simulator.violations), excused: of(environmentId, simulator.excused) }),
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
    if (!simulator.confirm(id, toolUseId, allow)) throw notFound(`a waiting call ${toolUseId}`);
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

/** As JSON, or as lines for `docker run --env-file` where plain text is asked for. */
async function claim(
  simulator: Simulator,
  [id = ""]: readonly string[],
  _body: Body,
  { accept }: Wanted,
): Promise<Reply> {
  const variables = await simulator.claim(id);
  if (!variables) return noContent;
  if (accept?.startsWith("text/plain") !== true) return ok(variables);
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}\n`);
  return { status: 200, text: lines.join("") };
}

/** @throws {ApiError} 404 */
function keyOf(simulator: Simulator, environmentId: string): string {
  const key = simulator.environmentKey(environmentId);
  if (key === "") throw notFound(`environment ${environmentId}`);
  return key;
}

/** Those of one environment, where one is given. */
function of(environmentId: string | undefined, violations: readonly Violation[]): Violation[] {
  return violations.filter((violation) => (environmentId ?? violation.environmentId) === violation.environmentId);
}

function wantedBy(request: IncomingMessage): Wanted {
  const query = new URLSearchParams((request.url ?? "").split("?")[1] ?? "");
  return { accept: request.headers.accept, environmentId: query.get("environmentId") ?? undefined };
}

/** The second part of a path is always an id. */
function match(method: string, path: string): { handler: Handler; ids: string[] } | undefined {
  const parts = pathParts(path).slice(1);
  const ids = parts.length > 1 ? [parts[1] ?? ""] : [];
  const pattern = parts.map((part, index) => (index === 1 ? "*" : part)).join("/");
  const handler = ADMIN_ROUTES[`${method} ${pattern}`];
  return handler && { handler, ids };
}

/** The admin API: what `Simulator` does, over HTTP. */
export function createAdmin(simulator: () => Simulator, token: string | undefined): AdminHandler {
  return async (request, path) => {
    guard(request, token);
    const found = match(request.method ?? "GET", path);
    if (!found) return undefined;
    const body = await readJson(request);
    try {
      return await found.handler(simulator(), found.ids, body, wantedBy(request));
    } catch (error) {
      if (error instanceof z.ZodError) throw invalidRequest(z.prettifyError(error));
      if (error instanceof RangeError) throw invalidRequest(error.message);
      throw error;
    }
  };
}

/** @throws {ApiError} 401, 403 */
function guard(request: IncomingMessage, token: string | undefined): void {
  // A page in somebody's browser can reach loopback too, but it cannot leave this header out.
  if (request.headers.origin !== undefined) throw forbidden("the admin API takes no requests from web pages");
  if (token !== undefined) {
    const { authorization, [TOKEN_HEADER]: own } = request.headers;
    if (authorization !== `Bearer ${token}` && own !== token) throw unauthenticated();
    return;
  }
  if (!isLoopback(request.socket.remoteAddress ?? "")) throw forbidden("without a token: from this machine only");
}

function isLoopback(address: string): boolean {
  return address === "::1" || /^(::ffff:)?127\./.test(address);
}

function parse<T extends z.ZodType>(schema: T, body: Body): z.output<T> {
  return schema.parse(body ?? {});
}

/** Does it, and answers without a body. */
function done(act: () => void): Reply {
  act();
  return noContent;
}

/** Without the keys that are undefined, for exact optional properties. */
function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as never;
}
