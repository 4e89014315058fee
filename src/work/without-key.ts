import { isRecord } from "../core/json.ts";
import { API_HEADERS, MAX_REPLY_BYTES } from "./caller.ts";
import { HttpFailure, type HttpSender } from "./http.ts";
import { pathSegment, splitBaseUrl } from "./paths.ts";
import { failureError, isWebPage } from "./replies.ts";

/** The reply to a request without credentials. */
export interface UnkeyedAnswer {
  readonly status: number;
  /** The body is an error of this API, not of a proxy, a login page or another service. */
  readonly isOfApi: boolean;
  readonly isWebPage: boolean;
}

/**
 * Requests an environment's statistics without a key. The Work API answers 401. That proves that the name, route, proxy
 * and certificate work, without using a secret.
 * @throws WorkApiError if no answer arrives
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
    throw failureError({ ...context, timeoutMs }, error);
  }
}

/** Whether the body is `{"type": "error", "error": {"type": ...}}`, the form of all the platform's errors. */
function isApiError(body: Buffer): boolean {
  try {
    const parsed: unknown = JSON.parse(body.toString("utf8"));
    return isRecord(parsed) && isRecord(parsed["error"]) && typeof parsed["error"]["type"] === "string";
  } catch {
    return false;
  }
}
