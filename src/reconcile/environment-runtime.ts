import type { ConditionUpdate } from "../api/conditions.ts";
import type { PodTemplate, QueueStatus, SessionsStatus, WorkersStatus, WorkspacesStatus } from "../api/environment.ts";
import type { Pod } from "../kube/resource.ts";
import type { SessionView } from "../protocol/session-view.ts";
import type { Verdict } from "../queue/api-health.ts";

/** What the reconciler allows the loops of an Environment. */
export interface Permissions {
  /** Requests may be sent: the origin is allowed and there is a key. */
  readonly mayAsk: boolean;
  /** Pods may be made: the template was accepted. */
  readonly mayPrepare: boolean;
  /** New items may be claimed: the same, and not paused nor being deleted. */
  readonly mayClaim: boolean;
}

/** What the loops say of themselves, for the Environment's status. */
export interface RuntimeReport {
  readonly queue: QueueStatus | null;
  readonly sessions: SessionsStatus | null;
  readonly workers?: WorkersStatus;
  /** Volumes of sessions, where they have any. */
  readonly workspaces?: WorkspacesStatus;
  /**
   * Where the items of all claims were claimed, those under way too; null while not all claims are known. Undefined: it
   * claims nothing.
   */
  readonly claimedFrom?: ReadonlySet<string> | null;
  readonly verdicts: readonly Verdict[];
  /** What keeps the loops from serving and is no matter of any condition, with the mend; null: nothing. */
  readonly blockedReason: string | null;
}

/** The loops of one Environment, whichever mode it is in. The reconciler starts, updates and stops them. */
export interface EnvironmentRuntime {
  start(): void;
  /** Stops all loops and waits for requests under way. What is in the cluster stays for the next process. */
  stop(): Promise<void>;
  /** The spec or what stands around it changed. */
  update(permissions: Permissions): void;
  /** Another environment key: try it at once. */
  keyChanged(): void;
  /** True from a 401 or 403 until `keyChanged`, or until it is tried again by `retryKey`. */
  readonly keyRejected: boolean;
  /** Tries a key once more that was rejected long ago; does nothing before its time. */
  retryKey(): void;
  /** A Pod of this Environment, or what makes its Pods, changed in the cache. */
  podChanged(name: string): void;
  /** There may be work: look at the queue, once. */
  look(): void;
  /** Whether a Pod of it runs this session, as far as it knows. */
  runs(sessionId: string): boolean;
  /** The Environment is being deleted: begin nothing, end what runs at `deadlineMs` (monotonic). */
  drain(deadlineMs: number): void;
  /** Nothing is left that the Environment would have to wait for. */
  readonly isDrained: boolean;
  /** What is left, in words. */
  readonly leftovers: string;
  /** The drain's time is over: what is left is given up. Returns whether nothing of it is left in the cluster. */
  abandon(): Promise<boolean>;
  /** Takes the finalizer away, if nothing needs it. */
  releaseHold(): Promise<void>;
  report(): RuntimeReport;
  /** The sessions that are claimed now; none where workers claim by themselves. */
  sessions(): readonly SessionView[];
}

/** What the reconciler asks of a template, whichever mode it belongs to. */
export interface CheckedTemplate {
  readonly hash: string;
  /** The container that a session or a worker runs in. */
  readonly container: string;
  /** The session container asks the registry at every look at a parked Pod. */
  readonly pullsAlways: boolean;
  /** Its image is looked up again and again while a Pod is parked. */
  readonly pullsAgain: boolean;
  /** Its path in the spec, for a person. */
  readonly field: "spec.sessions.template" | "spec.workers.template";
  /** What it asks for beyond what every template may have, in words of the policy. */
  readonly needs: readonly string[];
  /** As the spec has it. */
  readonly written: PodTemplate;
  render(name: string): Pod;
}

/** What an Environment is at this moment, as its status would say it. */
export interface EnvironmentLook {
  readonly mode: "Sessions" | "Workers";
  readonly max: number;
  readonly report: Pick<RuntimeReport, "queue" | "sessions" | "workers" | "blockedReason">;
  readonly conditions: readonly ConditionUpdate[];
}

/** Where to look at an Environment that is served here. Asked only while somebody looks. */
export interface EnvironmentSource {
  look(): EnvironmentLook;
  sessions(): readonly SessionView[];
}

/**
 * Told what this process serves, by `namespace/name`, for somebody who looks on (src/console). What can be asked is not told:
 * an observer whom nobody watches costs nothing but a call when a session ends and when something is wrong.
 */
export interface EnvironmentObserver {
  serves(key: string, source: EnvironmentSource): void;
  /** The spec cannot be served as it is; null: it can. */
  cannotServe(key: string, why: Pick<EnvironmentLook, "mode" | "max" | "conditions"> | null): void;
  /** It is deleted, or another replica's. The source is that of `serves`: the next term may have begun by then. */
  gone(key: string, source: EnvironmentSource): void;
  sessionEnded(key: string, session: SessionView): void;
  /** What an Event of type Warning says, about the Environment or one of its Pods. */
  warned(key: string, reason: string, message: string): void;
}
