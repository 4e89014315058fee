import { isRecord } from "../core/json.ts";

/** The event that tells of work: a session began to run. Work items themselves have none. */
export const RUN_STARTED = "session.status_run_started";

/** What a delivery says, as far as anybody here wants to know. */
export type WebhookEvent =
  | { readonly type: "run-started"; readonly sessionId: string; readonly workspaceId: string | null }
  | { readonly type: "other" };

/** Ids are some 30 characters; they are kept for a while, so none may be long. */
const MAX_ID = 256;

/** Undefined: it is no event. Types and fields that nobody knows yet are no error: the platform may add some at any time. */
export function parseEvent(body: string): WebhookEvent | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return undefined;
  }
  if (!isRecord(parsed) || !isRecord(parsed["data"]) || typeof parsed["data"]["type"] !== "string") return undefined;
  const { type, id, workspace_id } = parsed["data"];
  if (type !== RUN_STARTED) return { type: "other" };
  if (!isId(id)) return undefined;
  return { type: "run-started", sessionId: id, workspaceId: isId(workspace_id) ? workspace_id : null };
}

function isId(value: unknown): value is string {
  return typeof value === "string" && value !== "" && value.length <= MAX_ID;
}
