import type { IncomingMessage, ServerResponse } from "node:http";
import { invalidRequest } from "./errors.ts";
import { newId } from "./ids.ts";

/** Bodies beyond this are refused: the platform's bound for a request. */
const MAX_BODY_BYTES = 32 * 1024 * 1024;

/** What a handler answers. */
export interface Reply {
  readonly status: number;
  /** JSON; undefined: no body at all. */
  readonly body?: unknown;
  /** Plain text instead of JSON. */
  readonly text?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Called once the whole reply went out: the client can know what it says. */
  readonly onAnswered?: () => void;
  /** Instead of a body: takes the response over, for event streams. */
  readonly stream?: (response: ServerResponse) => void;
}

export const json = (status: number, body: unknown): Reply => ({ status, body });
export const noContent: Reply = { status: 204 };

/** Reads a whole body as JSON. @throws {ApiError} 400, when it is no JSON object or too long. */
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

/** Answers. Date is the simulator's own time, also under a time scale. */
export function write(response: ServerResponse, reply: Reply, now: number): void {
  stamp(response, now);
  for (const [name, value] of Object.entries(reply.headers ?? {})) response.setHeader(name, value);
  if (reply.onAnswered) response.once("finish", reply.onAnswered);
  if (reply.stream) reply.stream(response);
  else if (reply.text !== undefined) writeText(response, reply.status, "text/plain; charset=utf-8", reply.text);
  else if (reply.body === undefined) response.writeHead(reply.status).end();
  else writeText(response, reply.status, "application/json", JSON.stringify(reply.body));
}

/** Headers of every reply. */
export function stamp(response: ServerResponse, now: number): void {
  response.sendDate = false;
  response.setHeader("date", new Date(now).toUTCString());
  response.setHeader("request-id", newId("req"));
}

/** Answers with a text of any kind, under the headers that were set before. */
export function writeText(response: ServerResponse, status: number, type: string, text: string): void {
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(text) }).end(text);
}
