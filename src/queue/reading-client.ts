import type { Environment } from "../api/environment.ts";
import { type Clock, realClock } from "../core/clock.ts";
import { DEFAULT_TIMING } from "../core/timing.ts";
import { WorkApiClient } from "../work/client.ts";
import { WorkHttp } from "../work/http.ts";
import { askWithoutKey, type UnkeyedAnswer } from "../work/without-key.ts";

/** How this process may reach an Environment's Work API. */
export interface WorkAccess {
  /** Whether a key may be sent to this address. */
  readonly originAllowed: (baseUrl: string) => boolean;
  readonly proxy: { readonly httpsProxy?: string; readonly httpProxy?: string; readonly noProxy?: string };
  readonly clock?: Clock;
}

/**
 * Sends read-only requests to an Environment's Work API, for commands: only statistics and the list. Closes its
 * connections afterwards.
 */
export async function askWorkApi<T>(
  environment: Environment,
  key: string,
  access: WorkAccess,
  ask: (client: WorkApiClient) => Promise<T>,
): Promise<T> {
  const { api, environmentId } = environment.spec;
  return await withHttp(access, (http, clock) =>
    ask(
      new WorkApiClient({
        baseUrl: api.baseUrl,
        environmentId,
        key: () => key,
        workspaceId: api.workspaceId,
        workerId: "berth-look",
        http,
        clock,
      }),
    ),
  );
}

/** Sends a request without a key to the Work API of an Environment, to see what answers. @throws WorkApiError */
export async function reachWorkApi(environment: Environment, access: WorkAccess): Promise<UnkeyedAnswer> {
  const { api, environmentId } = environment.spec;
  return await withHttp(access, (http) =>
    askWithoutKey(http, { baseUrl: api.baseUrl, environmentId, timeoutMs: DEFAULT_TIMING.requestTimeoutMs }),
  );
}

async function withHttp<T>(
  { proxy, clock = realClock }: WorkAccess,
  ask: (http: WorkHttp, clock: Clock) => Promise<T>,
): Promise<T> {
  const http = new WorkHttp({ clock, proxy });
  try {
    return await ask(http, clock);
  } finally {
    await http.close();
  }
}
