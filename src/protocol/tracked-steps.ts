/** The text that people read when a step keeps failing. */
export interface StepInfo {
  /** What does not work, and the consequence. */
  readonly effect: string;
  /** The permission that fixes a 403; null: the error's own message says it. */
  readonly permission: string | null;
}

/**
 * The steps whose failures are tracked, in the order in which they are reported: those that block all sessions come
 * first. The names are the values of the label `step` of `berth_failing_steps`.
 */
export const STEPS = {
  recover: {
    effect: "nothing is claimed before the Secrets of earlier claims can be listed",
    permission: "list Secrets",
  },
  hold: {
    effect: "nothing is claimed while the finalizer cannot be added to the Environment",
    permission: "patch Environments",
  },
  journal: {
    effect: "nothing is claimed while the Secrets of claims cannot be created",
    permission: "create Secrets, or raise the quota",
  },
  "read-pod": {
    effect: "nothing is claimed while Pods cannot be read",
    permission: "get Pods in this namespace",
  },
  assign: {
    effect: "no session gets its first volume while PersistentVolumeClaims cannot be listed and changed",
    permission: "list and patch PersistentVolumeClaims (the chart's value rbac.workspaces)",
  },
  poll: {
    effect: "work items come too late to be acknowledged: polls of the Work API take too long",
    permission: null,
  },
  acknowledge: { effect: "no session starts while work items cannot be acknowledged", permission: null },
  open: {
    effect: "claimed sessions do not start while the Secrets of claims cannot be changed",
    permission: "patch Secrets",
  },
  deliver: {
    effect: "claimed sessions do not start while their Pods cannot be attached to",
    permission: "get and create pods/attach (the chart's value rbac.attach)",
  },
  "read-log": {
    effect: "claimed sessions do not start while their Pods' logs cannot be read",
    permission: "get pods/log (the chart's value rbac.attach)",
  },
  take: { effect: "claimed sessions do not start while the Work API takes no heartbeats", permission: null },
  beat: { effect: "sessions lose their leases while the Work API takes no heartbeats", permission: null },
  look: { effect: "sessions are neither started nor ended while work items cannot be listed", permission: null },
  fence: { effect: "ended sessions stay active while the Work API takes no heartbeats", permission: null },
  stop: { effect: "ended sessions stay active while work items cannot be stopped", permission: null },
  "add-turn": {
    effect: "sessions neither start nor wake while turns cannot be added to their Pods",
    permission: "patch pods/ephemeralcontainers (the chart's value rbac.ephemeralContainers)",
  },
  sleep: {
    effect: "sessions lose their Pods after each work item while Pods cannot be marked as sleeping",
    permission: "patch Pods",
  },
  settled: {
    effect: "ended sessions keep their Secrets and Pods while these cannot be deleted or changed",
    permission: "delete Secrets and patch Pods",
  },
  drop: {
    effect: "Pods stay reserved while the Secrets of claims that failed cannot be deleted",
    permission: "delete Secrets",
  },
  "delete-pod": { effect: "Pods keep their room while they cannot be deleted", permission: "delete Pods" },
  touch: {
    effect: "Pods do not show their session, and are not kept from evictions, while they cannot be changed",
    permission: "patch Pods",
  },
  release: {
    effect: "the Environment cannot be deleted while its finalizer cannot be removed",
    permission: "patch Environments",
  },
  claim: {
    effect: "work waits and Pods are free, but nothing is acknowledged: read the operator's log",
    permission: null,
  },
} as const satisfies Record<string, StepInfo>;

export type StepName = keyof typeof STEPS;
export const STEP_NAMES = Object.keys(STEPS) as StepName[];

/** A step that failed and has not succeeded since. Times are on the monotonic clock, in milliseconds. */
export interface FailingStep {
  /** Failures in a row. */
  readonly times: number;
  /** When the first of them failed, and the last. */
  readonly sinceMs: number;
  readonly failedMs: number;
  /** The step is not retried before this. */
  readonly untilMs: number;
  /** The server asked for the pause. */
  readonly isAsked: boolean;
  /** Only a person can fix it (a missing permission, a rule): it is reported immediately. */
  readonly isFinal: boolean;
  /** The kind of failure; while it does not change, neither does `message`. */
  readonly code: string;
  readonly message: string;
}

export type FailingByStep = Map<StepName, FailingStep>;
