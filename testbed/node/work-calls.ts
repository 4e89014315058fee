import { Agent, request } from "undici";

/** The Work API's answer: the status, and the body if it's JSON. */
export interface WorkAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** Identifies a worker and its item. */
export interface WorkIdentity {
  readonly baseUrl: string;
  readonly environmentId: string;
  readonly workId: string;
  readonly sessionId: string;
  /** The sessions token, or else the environment key. */
  readonly credential: string;
}

/** The three calls that a worker makes for its item. Each rejects if there was no answer. */
export interface WorkerApi {
  heartbeat(who: WorkIdentity, expected: string, signal: AbortSignal): Promise<WorkAnswer>;
  /** Stops the item with force. */
  stop(who: WorkIdentity, signal: AbortSignal): Promise<WorkAnswer>;
  session(who: WorkIdentity, signal: AbortSignal): Promise<WorkAnswer>;
  close(): Promise<void>;
}

/**
 * The number of connections to one Work API that all scripted workers of a node share. Thousands of workers send a
 * heartbeat every 30 s.
 */
const CONNECTIONS = 32;

/** Makes the calls over HTTP. */
export class WorkCalls implements WorkerApi {
  readonly #agent = new Agent({ connections: CONNECTIONS, allowH2: false });

  heartbeat(who: WorkIdentity, expected: string, signal: AbortSignal): Promise<WorkAnswer> {
    const query = `?expected_last_heartbeat=${encodeURIComponent(expected)}&beta=true`;
    return this.#send(who, "POST", `${workPath(who)}/heartbeat${query}`, undefined, signal);
  }

  stop(who: WorkIdentity, signal: AbortSignal): Promise<WorkAnswer> {
    return this.#send(who, "POST", `${workPath(who)}/stop?beta=true`, { force: true }, signal);
  }

  session(who: WorkIdentity, signal: AbortSignal): Promise<WorkAnswer> {
    return this.#send(who, "GET", `/v1/sessions/${encodeURIComponent(who.sessionId)}?beta=true`, undefined, signal);
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(
    who: WorkIdentity,
    method: "GET" | "POST",
    path: string,
    json: unknown,
    signal: AbortSignal,
  ): Promise<WorkAnswer> {
    const { statusCode, body } = await request(new URL(path, who.baseUrl), {
      dispatcher: this.#agent,
      method,
      signal,
      headers: {
        authorization: `Bearer ${who.credential}`,
        "anthropic-beta": "managed-agents-2026-04-01",
        "anthropic-version": "2023-06-01",
        ...(json === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    });
    const text = await body.text();
    return { status: statusCode, body: parsed(text) };
  }
}

function workPath({ environmentId, workId }: WorkIdentity): string {
  return `/v1/environments/${encodeURIComponent(environmentId)}/work/${encodeURIComponent(workId)}`;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
