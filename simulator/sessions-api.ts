import type { ServerResponse } from "node:http";
import { z } from "zod";
import { type ApiRequest, integerOf } from "./api-request.ts";
import type { Deadline, Deadlines } from "./deadlines.ts";
import { type ApiError, forbidden, invalidRequest } from "./errors.ts";
import { json, type Reply } from "./http.ts";
import type { Session, SessionEvent } from "./session.ts";

const EVENTS_PAGE = { standard: 100, max: 1000 } as const;
/** Keeps idle connections open through proxies. Clients ignore pings. */
const PING_MS = 15_000;

/** What the calls of the sessions API need in addition to the session. */
export interface SessionsApiContext {
  readonly deadlines: Deadlines;
  /** Records a violation: a result for a call that the agent never made. */
  unknownResult(details: string): ApiError;
  /** Called after a user's message, so that there is work for the session. */
  woken(session: Session): void;
}

type Handler = (session: Session, request: ApiRequest, context: SessionsApiContext) => Reply;

/** The part of the sessions API that workers use. */
export const SESSIONS_API: Readonly<Record<string, Handler>> = {
  session: (session) => json(200, session.body()),
  "events-list": listEvents,
  "events-stream": streamEvents,
  "events-send": sendEvents,
};

function listEvents(session: Session, request: ApiRequest): Reply {
  const { query } = request;
  const limit = integerOf(query, "limit") ?? EVENTS_PAGE.standard;
  if (!(limit >= 1 && limit <= EVENTS_PAGE.max)) throw invalidRequest(`limit must be between 1 and ${EVENTS_PAGE.max}`);
  const types = new Set([...query.getAll("types"), ...query.getAll("types[]")]);
  const events = types.size > 0 ? session.events.filter((event) => types.has(event.type)) : session.events;
  const ordered = query.get("order") === "desc" ? [...events].reverse() : events;
  const start = startOf(query.get("page"), ordered);
  const data = ordered.slice(start, start + limit);
  const last = data.at(-1);
  const hasMore = last !== undefined && start + limit < ordered.length;
  return json(200, { data, next_page: hasMore ? Buffer.from(last.id).toString("base64url") : null });
}

function startOf(page: string | null, events: readonly SessionEvent[]): number {
  if (page === null) return 0;
  const id = Buffer.from(page, "base64url").toString("utf8");
  const at = events.findIndex((event) => event.id === id);
  if (at < 0) throw invalidRequest("page is not a cursor of this list");
  return at + 1;
}

function streamEvents(session: Session, _request: ApiRequest, context: SessionsApiContext): Reply {
  const stream = (response: ServerResponse) => {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    response.flushHeaders();
    let ping: Deadline | undefined;
    const keepAlive = () => {
      response.write("event: ping\ndata: {}\n\n");
      ping = context.deadlines.after(PING_MS, keepAlive);
    };
    ping = context.deadlines.after(PING_MS, keepAlive);
    const unsubscribe = session.subscribe((event) => {
      if (event) response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
      else response.end();
    });
    response.once("close", () => {
      ping?.cancel();
      unsubscribe();
    });
  };
  return { status: 200, stream };
}

const contentSchema = z.array(z.looseObject({ type: z.string(), text: z.string().optional() })).optional();
const eventSchema = z.discriminatedUnion("type", [
  z.looseObject({
    type: z.literal("user.tool_result"),
    tool_use_id: z.string(),
    is_error: z.boolean().nullish(),
    content: contentSchema,
  }),
  z.looseObject({
    type: z.literal("user.custom_tool_result"),
    custom_tool_use_id: z.string(),
    is_error: z.boolean().nullish(),
    content: contentSchema,
  }),
  z.looseObject({ type: z.literal("user.message"), content: contentSchema }),
  z.looseObject({ type: z.literal("user.interrupt") }),
  z.looseObject({
    type: z.literal("user.tool_confirmation"),
    tool_use_id: z.string(),
    result: z.enum(["allow", "deny"]),
  }),
]);
const sendSchema = z.looseObject({ events: z.array(eventSchema).min(1) });
type SentEvent = z.output<typeof eventSchema>;

function sendEvents(session: Session, request: ApiRequest, context: SessionsApiContext): Reply {
  const parsed = sendSchema.safeParse(request.body ?? {});
  if (!parsed.success) throw invalidRequest(z.prettifyError(parsed.error));
  if (session.status === "terminated") throw invalidRequest("the session is terminated");
  const data = parsed.data.events.map((event) => take(session, event, request, context));
  return json(200, { data });
}

function take(session: Session, event: SentEvent, request: ApiRequest, context: SessionsApiContext): SessionEvent {
  const { type, ...fields } = event;
  switch (event.type) {
    case "user.tool_result":
      return takeResult(session, event.tool_use_id, event, fields, request, context);
    case "user.custom_tool_result":
      return takeResult(session, event.custom_tool_use_id, event, fields, request, context);
    case "user.message": {
      refuseToken(request, type);
      const message = session.converse({ prompt: textOf(event.content), turns: [], end: "idle" });
      context.woken(session);
      return message;
    }
    case "user.interrupt": {
      refuseToken(request, type);
      const interruption = session.interrupt();
      context.woken(session);
      return interruption;
    }
    case "user.tool_confirmation": {
      refuseToken(request, type);
      const verdict = session.confirm(event.tool_use_id, event.result === "allow");
      if (!verdict) throw invalidRequest(`no call ${event.tool_use_id} waits for a confirmation`);
      return verdict;
    }
  }
}

function takeResult(
  session: Session,
  callId: string,
  event: Extract<SentEvent, { type: "user.tool_result" | "user.custom_tool_result" }>,
  fields: Record<string, unknown>,
  request: ApiRequest,
  context: SessionsApiContext,
): SessionEvent {
  const call = session.toolCall(callId);
  if (!call || call.custom !== (event.type === "user.custom_tool_result")) {
    throw context.unknownResult(`${event.type} for ${callId}: the agent made no such call`);
  }
  // A client that lost the reply repeats its result. A new event would wake the worker of an idle session.
  const before = call.answeredAt === undefined ? undefined : session.resultOf(callId);
  if (before) return before;
  const sent = session.emit(event.type, fields);
  const { credential } = request.caller;
  session.answer(callId, {
    isError: event.is_error === true,
    output: textOf(event.content),
    workId: credential.kind === "sessions-token" ? credential.workId : undefined,
  });
  return sent;
}

function textOf(content: z.output<typeof contentSchema>): string {
  return (content ?? []).map((block) => block.text ?? `[${block.type}]`).join("\n");
}

/** Rejects events that only the application may send. A worker's token may only send tool results. */
function refuseToken(request: ApiRequest, type: string): void {
  if (request.caller.credential.kind === "sessions-token") throw forbidden(`a sessions token may not send ${type}`);
}
