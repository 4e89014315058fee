import { isRecord } from "../core/json.ts";
import { API_HEADERS, MAX_REPLY_BYTES } from "./caller.ts";
import { HttpFailure, type HttpSender } from "./http.ts";
import { pathSegment, splitBaseUrl } from "./paths.ts";
import { failureError, isWebPage } from "./replies.ts";

/** What answered a request that holds no credential. */
export interface UnkeyedAnswer {
  readonly status: number;
  /** The error is in this API's own words: not those of a proxy, a login page or another service. */
  readonly isOfApi: boolean;
  readonly isWebPage: boolean;
}

/**
 * Asks for an environment's statistics without any key. The Work API refuses that with 401, which takes names, routes,
 * proxies and certificates that work, and nothing secret.
 * @throws WorkApiError no answer came
 */
export async function askWithoutKey(
  http: HttpSender,
  { baseUrl, environmentId, timeoutMs }: { baseUrl: string; environmentId: string; timeoutMs: number },
): Promise<UnkeyedAnswer> {
  const { origin, prefix } = splitBaseUrl(baseUrl);
  const path = `${prefix}/v1/environments/${pathSegment(environmentId)}/work/stats`;
  try {
    const reply = await http.send({
      method: "GET",
      origin,
      path,
      headers: API_HEADERS,
      lane: "bulk",
      timeoutMs,
      maxBytes: MAX_REPLY_BYTES,
    });
    return { status: reply.status, isOfApi: isApiError(reply.body), isWebPage: isWebPage(reply) };
  } catch (error) {
    if (!(error instanceof HttpFailure)) throw error;
    const context = { call: "stats", origin, environmentId, workId: undefined, key: "", apiKey: false } as const;
    throw failureError({ ...context, timeoutMs, urgent: false }, error);
  }
}

/** `{"type": "error", "error": {"type": ...}}`, as every refusal of the platform has it. */
function isApiError(body: Buffer): boolean {
  try {
    const parsed: unknown = JSON.parse(body.toString("utf8"));
    return isRecord(parsed) && isRecord(parsed["error"]) && typeof parsed["error"]["type"] === "string";
  } catch {
    return false;
  }
}
