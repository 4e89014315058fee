import { isRecord } from "../core/json.ts";

/** The event that announces work: a session started to run. The platform sends no event for work items. */
export const RUN_STARTED = "session.status_run_started";

/** The part of a delivery that Berth uses. */
export type WebhookEvent =
  | { readonly type: "run-started"; readonly sessionId: string; readonly workspaceId: string | null }
  | { readonly type: "other" };

/** Ids have some 30 characters. They are kept for a while, so long ones are rejected. */
const MAX_ID = 256;

/**
 * Returns undefined if the body is not an event. Unknown types and fields are not errors, because the platform may add
 * some at any time.
 */
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
