import type { ConditionUpdate } from "../api/conditions.ts";
import type { PodTemplate } from "../api/environment.ts";
import type { Isolation } from "../api/isolation.ts";
import type { Permissions, RuntimeReport } from "../api/runtime.ts";
import type { Pod } from "../kube/resource.ts";
import type { ParkingChoice, SleepChoice } from "../pods/parking.ts";
import type { SessionView } from "../protocol/session-view.ts";

/** The loops of one Environment, in either mode. The reconciler starts, updates and stops them. */
export interface EnvironmentRuntime {
  start(): void;
  /** Stops all loops and waits for pending requests. Objects in the cluster stay for the next process. */
  stop(): Promise<void>;
  /** The spec or its surroundings changed. */
  update(permissions: Permissions): void;
  /** The environment key changed: the loops try it at once. */
  keyChanged(): void;
  /** True from a 401 or 403 until `keyChanged` is called or `retryKey` tries the key again. */
  readonly keyRejected: boolean;
  /**
   * Whether all Pods of its claims have ended, and the claims can't be settled without a key that is accepted. Their
   * items return to the queue when their leases lapse.
   */
  readonly isStranded: boolean;
  /** Tries a key again that was rejected long ago. Does nothing if it is too early. */
  retryKey(): void;
  /** A Pod of this Environment, or the object that creates its Pods, changed in the cache. */
  podChanged(name: string): void;
  /** There may be work: polls the queue once. */
  look(): void;
  /** Whether a Pod of this Environment runs this session, as far as the runtime knows. */
  runs(sessionId: string): boolean;
  /** The Environment is being deleted: starts nothing more, and ends what runs at `deadlineMs` (monotonic). */
  drain(deadlineMs: number): void;
  /** Whether nothing is left that the deletion must wait for. */
  readonly isDrained: boolean;
  /** What is left, as text for a message. */
  readonly leftovers: string;
  /** The drain has timed out: gives up what is left. Returns whether nothing of it remains in the cluster. */
  abandon(): Promise<boolean>;
  /** Removes the finalizer if nothing needs it. */
  releaseHold(): Promise<void>;
  report(): RuntimeReport;
  /** The sessions that are claimed or asleep now; none if workers claim them. */
  sessions(): readonly SessionView[];
}

/** What the reconciler needs of a template, in either mode. */
export interface CheckedTemplate {
  readonly hash: string;
  /** The container that a session or a worker runs in. */
  readonly container: string;
  /** The kubelet queries the registry every few seconds while a Pod is parked, because of the session container. */
  readonly pullsAlways: boolean;
  /** The kubelet pulls the session container's image repeatedly while a Pod is parked. */
  readonly pullsAgain: boolean;
  /** How free Pods wait; only of sessions. */
  readonly parking?: ParkingChoice;
  readonly sleep?: SleepChoice | null;
  /** The path of the template in the spec, for messages. */
  readonly field: "spec.sessions.template" | "spec.workers.template";
  /** What the template requests beyond what every template may have, in the terms of the Pod policy. */
  readonly needs: readonly string[];
  /** The template as the spec has it. */
  readonly written: PodTemplate;
  /** Where the template's RuntimeClass comes from; undefined: from the template. */
  readonly isolation?: Isolation | undefined;
  /** Why the template's mounts don't fit the workspace, with the fix; only of sessions. */
  readonly mountProblem?: string | null;
  render(name: string): Pod;
}

/** An Environment's current state, as its status would show it. */
export interface EnvironmentLook {
  readonly mode: "Sessions" | "Workers";
  readonly max: number;
  readonly report: Pick<RuntimeReport, "queue" | "sessions" | "workers" | "blocked">;
  readonly conditions: readonly ConditionUpdate[];
}

/** Gives access to an Environment that this process serves. Called only while someone looks at the console. */
export interface EnvironmentSource {
  look(): EnvironmentLook;
  sessions(): readonly SessionView[];
}

/**
 * Learns what this process serves, by `namespace/name` (for src/console). It is not told what it can query: with no
 * viewer, it costs one call per ended session and per warning.
 */
export interface EnvironmentObserver {
  serves(key: string, source: EnvironmentSource): void;
  /** The spec can't be served; null: it can. */
  cannotServe(key: string, why: Pick<EnvironmentLook, "mode" | "max" | "conditions"> | null): void;
  /**
   * The Environment was deleted, or another replica serves it now. `source` is the one passed to `serves`, because the
   * next term may have started already.
   */
  gone(key: string, source: EnvironmentSource): void;
  sessionEnded(key: string, session: SessionView): void;
  /** Reports an Event of type Warning about the Environment or one of its Pods. */
  warned(key: string, reason: string, message: string): void;
}
