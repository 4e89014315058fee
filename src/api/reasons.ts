/** Texts of a reason for a person: one sentence about what happened, one about the fix. */
export interface ReasonInfo {
  readonly description: string;
  /** The fix; "Nothing to do." if nothing is wrong. */
  readonly fix: string;
}

const NOTHING = "Nothing to do.";

/** The end of a session: the reason of its Event, and the value of the metric's label and the Pod's annotation. */
export interface EndReasonInfo extends ReasonInfo {
  /** True: keeps the Pod for retainFailedSeconds and writes a Warning. False: keeps it for retainFinishedSeconds. */
  readonly failed: boolean;
}

/** Why sessions end. The set is closed because it is a metric label: extend it deliberately. */
export const END_REASONS = {
  Completed: {
    failed: false,
    description: "The session's container ended with exit code 0.",
    fix: NOTHING,
  },
  Failed: {
    failed: true,
    description: "The session's container ended with an exit code other than 0.",
    fix: "Read the Pod's logs: the code and the last lines are in the Event.",
  },
  OOMKilled: {
    failed: true,
    description: "The session's container used more memory than its limit and was killed.",
    fix: "Raise resources.limits.memory of the session container in the template.",
  },
  Killed: {
    failed: true,
    description: "The session's container was killed by a signal that Berth did not send.",
    fix: "Look at the node's log for what killed it.",
  },
  Evicted: {
    failed: true,
    description:
      "The Pod was evicted: by a node that is short of memory or disk, shuts down or was given a taint, or by somebody's request.",
    fix: "Set requests that match the use, or disruption: Protect against voluntary evictions.",
  },
  Preempted: {
    failed: true,
    description: "The Pod made room for one of a higher priority.",
    fix: "Give the template a priorityClassName, or the cluster more room.",
  },
  NodeLost: {
    failed: true,
    description: "The node of the Pod stopped answering, or restarted.",
    fix: "Look at the node; the work item was settled according to onPodFailure.",
  },
  DeadlineExceeded: {
    failed: true,
    description: "The Pod reached its deadline, which holds also while no operator runs.",
    fix: "Raise maxDurationSeconds if sessions may take longer, and see that the operator runs.",
  },
  MaxDuration: {
    failed: true,
    description: "The session reached maxDurationSeconds and was stopped.",
    fix: "Raise maxDurationSeconds if sessions may take longer.",
  },
  StartFailed: {
    failed: true,
    description: "The session's program did not start, although its Pod was ready for it.",
    fix: "The Event holds kubelet's words: fix the image, the command, the mounts or the security context.",
  },
  NoFirstBeat: {
    failed: true,
    description: "The session's container started but sent no heartbeat within firstBeatTimeoutSeconds.",
    fix: "See that its Pods reach api.baseUrl, also past NetworkPolicies and proxies, and that the program is a worker that beats by itself, or set lease: Operator.",
  },
  LeaseLost: {
    failed: true,
    description: "The lease of the work item went to somebody else, so the Pod was ended and the item left alone.",
    fix: "See that no other operator or worker serves the same environment.",
  },
  StoppedByUser: {
    failed: false,
    description: "The work item was stopped from outside, and the Pod with it.",
    fix: NOTHING,
  },
  EnvironmentDeleted: {
    failed: false,
    description: "The Environment was deleted and deletionGraceSeconds were over.",
    fix: "Raise deletionGraceSeconds to let sessions end by themselves.",
  },
  PodDeleted: {
    failed: true,
    description: "Somebody deleted the Pod while its session ran.",
    fix: "Find who deletes Pods in this namespace; the work item was settled according to onPodFailure.",
  },
  CredentialMissing: {
    failed: true,
    description: "The work item came without a secret of its own, so no Pod was given it.",
    fix: "Set credential: EnvironmentKey if this environment issues no secrets per item.",
  },
  HealthCheck: {
    failed: false,
    description: "The work item was a health check: answered without a Pod.",
    fix: NOTHING,
  },
  UnknownItem: {
    failed: true,
    description: "The work item was of a type that this version of Berth does not know: stopped without a Pod.",
    fix: "Update Berth.",
  },
  Unknown: {
    failed: true,
    description: "The Pod was gone before anybody saw how its session ended.",
    fix: "Look at the Events of the namespace; the work item was settled.",
  },
} as const satisfies Record<string, EndReasonInfo>;

export type EndReason = keyof typeof END_REASONS;
/** All end reasons, for metric labels that start at 0. */
export const END_REASON_LIST = Object.keys(END_REASONS) as EndReason[];

/** Returns the value of a Pod's annotation as a reason, or undefined if it is none. */
export function asEndReason(value: string | undefined): EndReason | undefined {
  return value !== undefined && Object.hasOwn(END_REASONS, value) ? (value as EndReason) : undefined;
}

/** The same values as in core/v1 Events. */
export type EventType = "Normal" | "Warning";

/** An Event without a condition; `warning` gives its type. */
export interface EventReasonInfo extends ReasonInfo {
  readonly warning: boolean;
}

/** Reasons of Events that belong neither to a condition nor to a session's end. */
export const EVENT_REASONS = {
  SessionStarted: {
    warning: false,
    description: "A session's program is running.",
    fix: NOTHING,
  },
  SessionAsleep: {
    warning: false,
    description: "A work item ended, and its session sleeps in its Pod until the next one.",
    fix: NOTHING,
  },
  SleepEnded: {
    warning: false,
    description: "A sleeping session's Pod is deleted, for the reason in the message.",
    fix: "Raise workspace.sleepSeconds or maxSleeping to keep sleeping Pods longer. Set workspace.type: PerSession to keep files without a Pod.",
  },
  ScaledUp: {
    warning: false,
    description: "Workers were added, for the reason in the message.",
    fix: NOTHING,
  },
  ScaledDown: {
    warning: false,
    description: "Workers were removed, for the reason in the message.",
    fix: NOTHING,
  },
  WorkerEndedWhileBusy: {
    warning: true,
    description: "A worker that was last seen busy ended: its session was cut off.",
    fix: "The message says how it ended: look for who deletes or evicts Pods, for memory limits, and for workers that end by themselves.",
  },
  ProtectionFailing: {
    warning: true,
    description:
      "The disruption budget over running sessions could not be written: they run, and may be evicted although disruption is Protect.",
    fix: "Give the operator permission to create, patch and delete PodDisruptionBudgets in this namespace; the message has the API server's words.",
  },
  WorkspaceExpired: {
    warning: false,
    description: "The volume of a session was deleted: no Pod had used it for workspace.retainSeconds.",
    fix: "Raise workspace.retainSeconds to keep volumes longer.",
  },
  WorkspaceFailing: {
    warning: true,
    description:
      "Volumes of sessions could not be listed, marked or deleted: sessions are served, and volumes may be kept longer than workspace.retainSeconds.",
    fix: "Set the chart's rbac.workspaces=true, which gives the operator permission for PersistentVolumeClaims; the message has the API server's words.",
  },
  DrainGivenUp: {
    warning: true,
    description:
      "An Environment went 60 s after deletionGraceSeconds although items of it were not settled: their leases end by themselves.",
    fix: "Look at the Events before it for what kept them: an unreachable Work API, a key that was deleted first, a node that does not answer.",
  },
} as const satisfies Record<string, EventReasonInfo>;

export type EventOnlyReason = keyof typeof EVENT_REASONS;
