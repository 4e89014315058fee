import type { IncomingMessage, ServerResponse } from "node:http";
import { invalidRequest } from "./errors.ts";
import { newId } from "./ids.ts";

/** The platform's limit for a request body. The simulator rejects longer bodies. */
const MAX_BODY_BYTES = 32 * 1024 * 1024;

const REQUEST_ID = "request-id";

/** The answer of a handler. */
export interface Reply {
  readonly status: number;
  /** The JSON body. If undefined, the reply has no body. */
  readonly body?: unknown;
  /** Plain text instead of JSON. */
  readonly text?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Called after the whole reply was sent, so the client can know its content. */
  readonly onAnswered?: () => void;
  /** Writes the response itself, for event streams. */
  readonly stream?: (response: ServerResponse) => void;
}

export const json = (status: number, body: unknown): Reply => ({ status, body });
export const noContent: Reply = { status: 204 };

/** Reads a whole body as JSON. @throws {ApiError} 400 if it isn't a JSON object or is too long */
export async function readJson(request: IncomingMessage): Promise<Record<string, unknown> | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw invalidRequest("the request body is too long");
    chunks.push(chunk);
  }
  if (length === 0) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    throw invalidRequest("the request body is not valid JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidRequest("the request body is not a JSON object");
  }
  return value as Record<string, unknown>;
}

/** Sends a reply. The Date header shows the simulator's clock, which may be scaled. */
export function write(response: ServerResponse, reply: Reply, now: number): void {
  stamp(response, now);
  for (const [name, value] of Object.entries(reply.headers ?? {})) response.setHeader(name, value);
  if (reply.onAnswered) response.once("finish", reply.onAnswered);
  if (reply.stream) reply.stream(response);
  else if (reply.text !== undefined) writeText(response, reply.status, "text/plain; charset=utf-8", reply.text);
  else if (reply.body === undefined) response.writeHead(reply.status).end();
  else writeText(response, reply.status, "application/json", JSON.stringify(withRequestId(reply.body, response)));
}

/** The body of an error also has the id of its request. */
function withRequestId(body: unknown, response: ServerResponse): unknown {
  const isError = typeof body === "object" && body !== null && "type" in body && body.type === "error";
  return isError ? { ...body, request_id: response.getHeader(REQUEST_ID) } : body;
}

/** Sets the headers that every reply has. */
export function stamp(response: ServerResponse, now: number): void {
  response.sendDate = false;
  response.setHeader("date", new Date(now).toUTCString());
  response.setHeader(REQUEST_ID, newId("req"));
}

/** Sends text of any content type, with the headers that are already set. */
export function writeText(response: ServerResponse, status: number, type: string, text: string): void {
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(text) }).end(text);
}
