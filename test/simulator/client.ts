import { z } from "zod";
import type { Simulator } from "../../simulator/simulator.ts";

/** A work item in its wire format. */
export const workSchema = z.strictObject({
  id: z.string(),
  type: z.literal("work"),
  environment_id: z.string(),
  data: z.strictObject({ type: z.string(), id: z.string() }),
  state: z.enum(["queued", "starting", "active", "stopping", "stopped"]),
  secret: z.string().nullable(),
  metadata: z.record(z.string(), z.string()),
  created_at: z.string(),
  acknowledged_at: z.string().nullable(),
  started_at: z.string().nullable(),
  latest_heartbeat_at: z.string().nullable(),
  stop_requested_at: z.string().nullable(),
  stopped_at: z.string().nullable(),
});
export type Work = z.output<typeof workSchema>;

export const beatSchema = z.strictObject({
  type: z.literal("work_heartbeat"),
  last_heartbeat: z.string(),
  lease_extended: z.boolean(),
  state: z.enum(["queued", "starting", "active", "stopping", "stopped"]),
  ttl_seconds: z.number(),
});

export const errorSchema = z.object({
  type: z.literal("error"),
  error: z.object({ type: z.string(), message: z.string(), details: z.unknown().optional() }),
});

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** @throws {SyntaxError} */
  json(): unknown;
}

export interface ClientOptions {
  readonly url: string;
  readonly environmentId: string;
  /** Sent as a bearer token. */
  readonly bearer?: string | undefined;
  readonly apiKey?: string | undefined;
  readonly workerId?: string | undefined;
  readonly userAgent?: string | undefined;
}

/** A plain HTTP client of the Work API without any convenience: it sends exactly what the test says. */
export class Client {
  readonly options: ClientOptions;

  constructor(options: ClientOptions) {
    this.options = options;
  }

  /** Returns the same client with other options. */
  with(options: Partial<ClientOptions>): Client {
    return new Client({ ...this.options, ...options });
  }

  async request(
    method: string,
    path: string,
    init: { body?: unknown; headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    const { url, bearer, apiKey, workerId, userAgent } = this.options;
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        "anthropic-beta": "managed-agents-2026-04-01",
        "anthropic-version": "2023-06-01",
        ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
        ...(apiKey !== undefined && { "x-api-key": apiKey }),
        ...(workerId !== undefined && { "anthropic-worker-id": workerId }),
        ...(userAgent !== undefined && { "user-agent": userAgent }),
        ...(init.body !== undefined && { "content-type": "application/json" }),
        ...init.headers,
      },
      ...(init.body !== undefined && { body: typeof init.body === "string" ? init.body : JSON.stringify(init.body) }),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, json: () => JSON.parse(text) as unknown };
  }

  work(path = "", query: Record<string, string | number> = {}): string {
    const text = new URLSearchParams(
      Object.entries(query).map(([key, value]): [string, string] => [key, String(value)]),
    ).toString();
    return `/v1/environments/${this.options.environmentId}/work${path}${text ? `?${text}` : ""}`;
  }

  pollRaw(query: Record<string, string | number> = {}): Promise<Answer> {
    return this.request("GET", this.work("/poll", query));
  }

  /** @returns the item, or null for an empty queue. */
  async poll(query: Record<string, string | number> = {}): Promise<Work | null> {
    const answer = await this.pollRaw(query);
    if (answer.status !== 200) throw new Error(`poll: ${answer.status} ${answer.text}`);
    return workSchema.nullable().parse(answer.json());
  }

  /** @throws {Error} if the queue is empty */
  async take(query: Record<string, string | number> = {}): Promise<Work> {
    const work = await this.poll(query);
    if (!work) throw new Error("the queue is empty");
    return work;
  }

  ack(workId: string): Promise<Answer> {
    return this.request("POST", this.work(`/${workId}/ack`));
  }

  beat(workId: string, expected: string | undefined, ttlSeconds?: number): Promise<Answer> {
    const query = {
      ...(expected !== undefined && { expected_last_heartbeat: expected }),
      ...(ttlSeconds !== undefined && { desired_ttl_seconds: ttlSeconds }),
    };
    return this.request("POST", this.work(`/${workId}/heartbeat`, query));
  }

  /** Sends a heartbeat that must be accepted. @returns its last_heartbeat */
  async mustBeat(workId: string, expected: string, ttlSeconds?: number): Promise<string> {
    const answer = await this.beat(workId, expected, ttlSeconds);
    if (answer.status !== 200) throw new Error(`heartbeat: ${answer.status} ${answer.text}`);
    return beatSchema.parse(answer.json()).last_heartbeat;
  }

  stop(workId: string, force?: boolean): Promise<Answer> {
    return this.request("POST", this.work(`/${workId}/stop`), force === undefined ? {} : { body: { force } });
  }

  stats(): Promise<Answer> {
    return this.request("GET", this.work("/stats"));
  }

  list(query: Record<string, string | number> = {}): Promise<Answer> {
    return this.request("GET", this.work("", query));
  }

  /** Lists all pages. */
  async listAll(limit = 100): Promise<Work[]> {
    const all: Work[] = [];
    for (let page: string | null = ""; page !== null; ) {
      const answer = await this.list({ limit, ...(page && { page }) });
      const body = z.strictObject({ data: z.array(workSchema), next_page: z.string().nullable() }).parse(answer.json());
      all.push(...body.data);
      page = body.next_page;
    }
    return all;
  }

  retrieve(workId: string): Promise<Answer> {
    return this.request("GET", this.work(`/${workId}`));
  }
}

const secretSchema = z.strictObject({ sessions_token: z.string(), api_base_url: z.string().optional() });

export function decodeSecret(secret: string | null): z.output<typeof secretSchema> {
  return secretSchema.parse(JSON.parse(Buffer.from(secret ?? "", "base64url").toString("utf8")));
}

/** Returns the token of an item's worker. */
export function tokenOf(work: Work): string {
  return decodeSecret(work.secret).sessions_token;
}

/** A client of a new environment. */
export function newClient(simulator: Simulator, workerId = "poller-1"): Client {
  const { id, key } = simulator.createEnvironment();
  return new Client({ url: simulator.url, environmentId: id, bearer: key, workerId });
}

/** Returns a client for the worker of an item, with its sessions token and its own User-Agent. */
export function workerOf(client: Client, work: Work): Client {
  return client.with({ bearer: tokenOf(work), workerId: undefined, userAgent: "worker" });
}
