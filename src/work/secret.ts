import { isRecord } from "../core/json.ts";
import { WorkApiError } from "./errors.ts";

/** What a work item's `secret` holds. Never show any of it. */
export interface WorkSecret {
  /** Bearer credential of the session's own calls. */
  readonly sessionsToken: string;
  readonly apiBaseUrl?: string;
}

const BASE64URL = /^[A-Za-z0-9_-]+={0,2}$/;

/**
 * Decodes the `secret` of a polled item: base64url of `{"sessions_token": ..., "api_base_url"?: ...}`.
 * @throws WorkApiError of kind `protocol`, which quotes nothing of it.
 */
export function decodeWorkSecret(secret: string): WorkSecret {
  // The standard alphabet is accepted too: Buffer decodes both, and the official workers do the same.
  const text = secret.trim().replaceAll("+", "-").replaceAll("/", "_");
  if (!BASE64URL.test(text)) throw undecodable("it is not base64url");
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(text, "base64url")));
  } catch {
    // The parser's own message quotes the text: it must not become the cause.
    throw undecodable("it is not base64url of JSON");
  }
  if (!isRecord(value)) throw undecodable("it is not a JSON object");
  const { sessions_token: sessionsToken, api_base_url: apiBaseUrl } = value;
  if (typeof sessionsToken !== "string" || sessionsToken === "") throw undecodable("it has no sessions_token");
  if (apiBaseUrl === undefined || apiBaseUrl === null || apiBaseUrl === "") return { sessionsToken };
  if (typeof apiBaseUrl !== "string") throw undecodable("its api_base_url is no text");
  return { sessionsToken, apiBaseUrl };
}

function undecodable(why: string): WorkApiError {
  return new WorkApiError({
    kind: "protocol",
    call: "poll",
    message: `the secret of the work item cannot be decoded: ${why}; the item cannot be served with credential: WorkSecret`,
  });
}
