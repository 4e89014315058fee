import type { ConditionReason } from "../api/condition-reasons.ts";

/** What people read when a step keeps failing. */
export interface StepInfo {
  /** The reason in Ready, which names the effect. */
  readonly reason: ConditionReason;
  /** What does not work, and the consequence. */
  readonly effect: string;
  /** The permission that fixes a 403; null: the error's own message says it. */
  readonly permission: string | null;
}

const ATTACH = "get and create pods/attach (the chart's rbac.attach)";

/**
 * The steps whose failures are tracked, in the order in which they are reported: those that block all sessions come
 * first. The names are the values of the label `step` of `berth_failing_steps`.
 */
export const STEPS = {
  recover: {
    reason: "NothingStarts",
    effect: "Berth claims nothing until it can list the Secrets of earlier claims",
    permission: "list Secrets",
  },
  hold: {
    reason: "NothingStarts",
    effect: "Berth claims nothing while it cannot add the finalizer to the Environment",
    permission: "patch Environments",
  },
  journal: {
    reason: "NothingStarts",
    effect: "Berth claims nothing while it cannot create the Secrets of claims",
    permission: "create Secrets, or raise the quota",
  },
  "read-pod": {
    reason: "NothingStarts",
    effect: "Berth claims nothing while it cannot read Pods",
    permission: "get Pods in this namespace",
  },
  assign: {
    reason: "NothingStarts",
    effect: "no session gets its first volume while Berth cannot list and change PersistentVolumeClaims",
    permission: "list and patch PersistentVolumeClaims (the chart's features.volumes)",
  },
  poll: {
    reason: "NothingStarts",
    effect: "polls of the Work API take too long, so work items come too late to be acknowledged",
    permission: null,
  },
  acknowledge: {
    reason: "NothingStarts",
    effect: "no session starts while Berth cannot acknowledge work items",
    permission: null,
  },
  open: {
    reason: "NothingStarts",
    effect: "claimed sessions do not start while Berth cannot change the Secrets of claims",
    permission: "patch Secrets",
  },
  deliver: {
    reason: "NothingStarts",
    effect: "claimed sessions do not start while Berth cannot attach to their Pods",
    permission: ATTACH,
  },
  "read-log": {
    reason: "NothingStarts",
    effect: "claimed sessions do not start while Berth cannot read the logs of their Pods",
    permission: "get pods/log (the chart's rbac.attach)",
  },
  take: {
    reason: "NothingStarts",
    effect: "claimed sessions do not start while the Work API accepts no heartbeats",
    permission: null,
  },
  beat: {
    reason: "SessionsInterrupted",
    effect: "sessions lose their leases while the Work API accepts no heartbeats",
    permission: null,
  },
  look: {
    reason: "NothingStarts",
    effect: "sessions neither start nor end while Berth cannot list work items",
    permission: null,
  },
  fence: {
    reason: "CleanupFailing",
    effect: "ended sessions stay active while the Work API accepts no heartbeats",
    permission: null,
  },
  stop: {
    reason: "CleanupFailing",
    effect: "ended sessions stay active while Berth cannot stop work items",
    permission: null,
  },
  "add-turn": {
    reason: "NothingStarts",
    effect: "sessions neither start nor wake while Berth cannot add turns to their Pods",
    permission: "patch pods/ephemeralcontainers (the chart's rbac.ephemeralContainers)",
  },
  wake: {
    reason: "NothingStarts",
    effect: "sessions do not wake while Berth cannot attach to their Pods",
    permission: ATTACH,
  },
  sleep: {
    reason: "SessionsInterrupted",
    effect: "sessions lose their Pods after each work item while Berth cannot mark Pods as sleeping",
    permission: "patch Pods",
  },
  settled: {
    reason: "CleanupFailing",
    effect: "ended sessions keep their Secrets and Pods while Berth cannot delete or change these",
    permission: "delete Secrets and patch Pods",
  },
  drop: {
    reason: "CleanupFailing",
    effect: "Pods stay reserved while Berth cannot delete the Secrets of failed claims",
    permission: "delete Secrets",
  },
  "delete-pod": {
    reason: "CleanupFailing",
    effect: "Pods count towards maxConcurrent while Berth cannot delete them",
    permission: "delete Pods",
  },
  touch: {
    reason: "SessionsInterrupted",
    effect: "Pods do not show their session, and can be evicted, while Berth cannot change them",
    permission: "patch Pods",
  },
  release: {
    reason: "CleanupFailing",
    effect: "the Environment cannot be deleted while Berth cannot remove its finalizer",
    permission: "patch Environments",
  },
  status: {
    reason: "StatusOutdated",
    effect: "the status stays old while Berth cannot write it",
    permission: "patch environments/status",
  },
  claim: {
    reason: "NothingStarts",
    effect: "work waits and Pods are free, but Berth acknowledges nothing; read the operator's log",
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
