/** A test server with a client for it, and helpers for failed calls. */

import { type Clock, realClock } from "../../src/core/clock.ts";
import { WorkApiClient, type WorkApiClientOptions } from "../../src/work/client.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { WorkHttp } from "../../src/work/http.ts";
import { ENVIRONMENT, KEY } from "./samples.ts";
import { StrictServer } from "./strict-server.ts";

/** Far above the duration of any of these tests, so that an unrelated timeout does not fire on a slow machine. */
export const LONG_MS = 60_000;

type ClientOptions = Partial<WorkApiClientOptions> & { readonly prefix?: string };

/** A server and a client for it. */
export class Setup implements AsyncDisposable {
  readonly server: StrictServer;
  readonly http: WorkHttp;
  readonly clock: Clock;
  readonly client: WorkApiClient;

  private constructor(server: StrictServer, options: ClientOptions) {
    this.server = server;
    this.clock = options.clock ?? realClock;
    this.http = new WorkHttp({ clock: this.clock });
    this.client = this.clientOf(options);
  }

  static async start(options: ClientOptions = {}): Promise<Setup> {
    return new Setup(await StrictServer.start(), options);
  }

  /** Another client of the same server, with other options. */
  clientOf({ prefix = "", ...options }: ClientOptions): WorkApiClient {
    return new WorkApiClient({
      baseUrl: `${this.server.origin}${prefix}`,
      environmentId: ENVIRONMENT,
      key: () => KEY,
      workerId: "berth-0",
      http: this.http,
      clock: this.clock,
      requestTimeoutMs: LONG_MS,
      protocolTimeoutMs: LONG_MS,
      ...options,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.http.destroy();
    await this.server[Symbol.asyncDispose]();
  }
}

/** The WorkApiError that rejects `promise`. */
export async function failure(promise: Promise<unknown>): Promise<WorkApiError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof WorkApiError) return error;
    throw error;
  }
  throw new Error("the call succeeded");
}

/** The calls that take an item, by name. */
export type ItemCall = "ack" | "heartbeat" | "stop";

export function itemCall(client: WorkApiClient, name: ItemCall, id: string, signal?: AbortSignal): Promise<unknown> {
  switch (name) {
    case "ack":
      return client.ack(id, { signal });
    case "heartbeat":
      return client.heartbeat(id, { expected: "NO_HEARTBEAT", signal });
    case "stop":
      return client.stop(id, { force: true, signal });
  }
}
