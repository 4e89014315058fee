/** Texts of a reason for a person: one sentence about what happened, one about the fix. */
export interface ReasonInfo {
  readonly description: string;
  /** The fix; `NOTHING` if nothing is wrong. */
  readonly fix: string;
}

export const NOTHING = "Nothing to do.";

/** The end of a session: the reason of its Event, and the value of the metric's label and the Pod's annotation. */
export interface EndReasonInfo extends ReasonInfo {
  /** True: keeps the Pod for retainFailedSeconds and writes a Warning. False: keeps it for retainEndedSeconds. */
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
    fix: "Read the Pod's log. The exit code and the last lines are in the Event.",
  },
  OOMKilled: {
    failed: true,
    description: "The session's container used more memory than its limit and was killed.",
    fix: "Raise resources.limits.memory of the session container in the template.",
  },
  Killed: {
    failed: true,
    description: "The session's container was killed by a signal that Berth did not send.",
    fix: "Find in the node's log what killed it.",
  },
  Evicted: {
    failed: true,
    description:
      "The Pod was evicted: its node is short of memory or disk, shuts down or got a taint, or a client requested it.",
    fix: "Set requests that match the real use. Set disruption: Protect against voluntary evictions.",
  },
  Preempted: {
    failed: true,
    description: "The scheduler removed the Pod for one of a higher priority.",
    fix: "Set a priorityClassName in the template, or add nodes.",
  },
  NodeLost: {
    failed: true,
    description: "The Pod's node stopped answering, or restarted.",
    fix: "Check the node. Berth settled the work item according to onPodFailure.",
  },
  DeadlineExceeded: {
    failed: true,
    description: "The Pod reached its deadline, which the kubelet enforces even if no operator runs.",
    fix: "Raise maxDurationSeconds if sessions may take longer, and check that the operator runs.",
  },
  MaxDuration: {
    failed: true,
    description: "The session reached maxDurationSeconds, so Berth stopped it.",
    fix: "Raise maxDurationSeconds if sessions may take longer.",
  },
  StartFailed: {
    failed: true,
    description: "The session's program did not start, although its Pod was ready for it.",
    fix: "Fix the image, the command, the mounts or the security context. The Event has the kubelet's message.",
  },
  NoFirstBeat: {
    failed: true,
    description: "The session's container started but sent no heartbeat within firstBeatTimeoutSeconds.",
    fix: "Check that its Pods can reach api.baseUrl (NetworkPolicies, proxies), and that the program sends heartbeats, or set lease: Operator.",
  },
  LeaseLost: {
    failed: true,
    description: "Another client holds the lease of the work item, so Berth ended the Pod and left the item alone.",
    fix: "Check that no other operator or worker serves the same environment.",
  },
  StoppedByUser: {
    failed: false,
    description: "A client stopped the work item, so Berth ended the Pod.",
    fix: NOTHING,
  },
  EnvironmentDeleted: {
    failed: false,
    description: "The Environment was deleted, and deletionGraceSeconds had passed.",
    fix: "Raise deletionGraceSeconds to give sessions more time to end.",
  },
  PodDeleted: {
    failed: true,
    description: "A client deleted the Pod while its session ran.",
    fix: "Find the client that deletes Pods in this namespace. Berth settled the work item according to onPodFailure.",
  },
  CredentialMissing: {
    failed: true,
    description: "The work item came without its own secret, so no Pod got it.",
    fix: "Set credential: EnvironmentKey if this environment issues no secrets per item.",
  },
  StopIgnored: {
    failed: true,
    description:
      "The work item ran three times, and the Work API offered it again each time, although it had answered that the item was stopped. So no Pod got it.",
    fix: "Report the item's id to those who run the Work API. Work items of other sessions are not affected.",
  },
  HealthCheck: {
    failed: false,
    description: "The work item was a health check. Berth answered it without a Pod.",
    fix: NOTHING,
  },
  UnknownItem: {
    failed: true,
    description: "This version of Berth does not know the type of the work item, so Berth stopped it without a Pod.",
    fix: "Update Berth.",
  },
  Unknown: {
    failed: true,
    description: "The Pod was deleted before Berth saw how its session ended.",
    fix: "Check the Events of the namespace. Berth settled the work item.",
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
    description: "Berth deletes the Pod of a sleeping session, for the reason in the message.",
    fix: "Raise workspace.sleepSeconds or maxSleeping to keep sleeping Pods longer. Set workspace.type: PerSession to keep files without a Pod.",
  },
  ScaledUp: {
    warning: false,
    description: "Berth added workers, for the reason in the message.",
    fix: NOTHING,
  },
  ScaledDown: {
    warning: false,
    description: "Berth removed workers, for the reason in the message.",
    fix: NOTHING,
  },
  WorkerEndedWhileBusy: {
    warning: true,
    description: "A worker ended that was last seen busy, and it did not finish its session.",
    fix: "The message says how it ended. Let the program finish its session on SIGTERM, raise terminationGracePeriodSeconds, or check memory limits and workers that exit.",
  },
  ProtectionFailing: {
    warning: true,
    description:
      "The operator could not write the disruption budget of running sessions for 10 seconds. They run, and can be evicted although disruption is Protect.",
    fix: "Give the operator permission to get, create, patch and delete PodDisruptionBudgets in this namespace. The message has the API server's error.",
  },
  WorkspaceExpired: {
    warning: false,
    description:
      "Berth deleted the volume of a session, which no Pod had used for workspace.retainSeconds. If the session's next work item waits, Berth keeps the volume for another 24 hours.",
    fix: "Raise workspace.retainSeconds to keep volumes longer.",
  },
  WorkspaceFailing: {
    warning: true,
    description:
      "The operator cannot list, mark or delete volumes of sessions. It serves sessions, and keeps volumes longer than workspace.retainSeconds.",
    fix: "Set the chart's features.volumes=true, which gives the operator permission for PersistentVolumeClaims. The message has the API server's error.",
  },
  DrainGivenUp: {
    warning: true,
    description:
      "An Environment was deleted with unsettled work items, 60 s after deletionGraceSeconds. Their leases expire.",
    fix: "Find the cause in earlier Events: an unreachable Work API, a deleted key, or a node that does not answer.",
  },
} as const satisfies Record<string, EventReasonInfo>;

export type EventOnlyReason = keyof typeof EVENT_REASONS;
