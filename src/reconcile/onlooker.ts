import type { ConditionUpdate } from "../api/conditions.ts";
import type { SessionView } from "../protocol/session-view.ts";
import type { RuntimeReport } from "./environment-runtime.ts";

/** What an Environment is at this moment, as its status would say it. */
export interface EnvironmentLook {
  readonly mode: "Sessions" | "Workers";
  readonly max: number;
  readonly report: Pick<RuntimeReport, "queue" | "sessions" | "workers" | "hindrance">;
  readonly conditions: readonly ConditionUpdate[];
}

/** Where to look at an Environment that is served here. Asked only while somebody looks. */
export interface EnvironmentSource {
  look(): EnvironmentLook;
  sessions(): readonly SessionView[];
}

/**
 * Told what this process serves, by `namespace/name`, for somebody who looks on (src/console). What can be asked is not told:
 * an onlooker whom nobody watches costs nothing but a call when a session ends and when something is wrong.
 */
export interface Onlooker {
  serves(key: string, source: EnvironmentSource): void;
  /** The spec cannot be served as it is; null: it can. */
  cannotServe(key: string, why: Pick<EnvironmentLook, "mode" | "max" | "conditions"> | null): void;
  /** It is deleted, or another replica's. The source is that of `serves`: the next term may have begun by then. */
  gone(key: string, source: EnvironmentSource): void;
  sessionEnded(key: string, session: SessionView): void;
  /** What an Event of type Warning says, about the Environment or one of its Pods. */
  warned(key: string, reason: string, message: string): void;
}
