import { isGood } from "../api/condition-types.ts";
import type { ConditionUpdate } from "../api/conditions.ts";
import type { QueueStatus, SessionsStatus, WorkersStatus } from "../api/status.ts";
import type { SessionView } from "../protocol/session-view.ts";
import type { EnvironmentLook } from "../reconcile/environment-runtime.ts";

/** Longer texts are truncated, because each is one line of many. */
const TEXT_LENGTH = 300;

/** A problem that was reported once or several times. */
export interface Warning {
  readonly reason: string;
  readonly message: string;
  /** The last occurrence. */
  readonly atMs: number;
  readonly times: number;
}

/** An Environment in the form that the page receives. */
export interface EnvironmentShown {
  /** `namespace/name`. */
  readonly key: string;
  readonly mode: "Sessions" | "Workers";
  readonly max: number;
  readonly ready: { readonly status: ConditionUpdate["status"]; readonly reason: string; readonly message: string };
  /** Conditions that report a problem, except `Ready`, which repeats one of them. */
  readonly wrong: readonly { readonly type: string; readonly reason: string; readonly message: string }[];
  readonly queue: QueueStatus | null;
  readonly sessions: SessionsStatus | null;
  readonly workers: WorkersStatus | null;
  /** Newest first. */
  readonly warnings: readonly Warning[];
}

/** A session in the form that the page receives. */
export interface SessionShown extends SessionView {
  /** Unique among all sessions of this process. */
  readonly id: string;
  /** The key of its Environment. */
  readonly environment: string;
}

/** An Environment without a known state yet. */
const NOT_LOOKED = { status: "Unknown", reason: "Pending", message: "" } as const;

export function environmentShown(
  key: string,
  look: EnvironmentLook,
  conditions: readonly ConditionUpdate[],
  warnings: readonly Warning[],
): EnvironmentShown {
  const { queue, sessions, workers = null } = look.report;
  const { status, reason, message } = conditions.find(({ type }) => type === "Ready") ?? NOT_LOOKED;
  return {
    key,
    mode: look.mode,
    max: look.max,
    ready: { status, reason, message: cut(message) },
    wrong: conditions
      .filter((condition) => condition.type !== "Ready" && condition.status !== "Unknown" && !isGood(condition))
      .map(({ type, reason, message }) => ({ type, reason, message: cut(message) })),
    queue,
    sessions,
    workers,
    warnings,
  };
}

export function sessionShown(environment: string, session: SessionView): SessionShown {
  // One item may be served twice, each time in its own Pod.
  const id = `${environment}/${session.pod}/${session.workId}`;
  return { ...session, id, environment, message: cut(session.message) };
}

export function cut(text: string): string {
  return text.length <= TEXT_LENGTH ? text : `${text.slice(0, TEXT_LENGTH - 1)}…`;
}
