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
 * The steps whose failures are tracked, in the order in which they are reported, by the reason that `Ready` gives. The
 * names are the values of the label `step` of `berth_failing_steps`.
 */
export const STEPS = {
  ...withReason("NothingStarts", {
    recover: {
      effect: "Berth claims nothing until it can list the Secrets of earlier claims",
      permission: "list Secrets",
    },
    hold: {
      effect: "Berth claims nothing while it cannot add the finalizer to the Environment",
      permission: "patch Environments",
    },
    journal: {
      effect: "Berth claims nothing while it cannot create the Secrets of claims",
      permission: "create Secrets, or raise the quota",
    },
    "read-pod": { effect: "Berth claims nothing while it cannot read Pods", permission: "get Pods in this namespace" },
    assign: {
      effect: "no session gets its first volume while Berth cannot list and change PersistentVolumeClaims",
      permission: "list and patch PersistentVolumeClaims (the chart's features.volumes)",
    },
    poll: {
      effect: "polls of the Work API take too long, so work items come too late to be acknowledged",
      permission: null,
    },
    acknowledge: { effect: "no session starts while Berth cannot acknowledge work items", permission: null },
    open: {
      effect: "claimed sessions do not start while Berth cannot change the Secrets of claims",
      permission: "patch Secrets",
    },
    deliver: { effect: "claimed sessions do not start while Berth cannot attach to their Pods", permission: ATTACH },
    "read-log": {
      effect: "claimed sessions do not start while Berth cannot read the logs of their Pods",
      permission: "get pods/log (the chart's rbac.attach)",
    },
    take: { effect: "claimed sessions do not start while the Work API accepts no heartbeats", permission: null },
    look: { effect: "sessions neither start nor end while Berth cannot list work items", permission: null },
    "add-turn": {
      effect: "sessions neither start nor wake while Berth cannot add turns to their Pods",
      permission: "patch pods/ephemeralcontainers (the chart's rbac.ephemeralContainers)",
    },
    wake: { effect: "sessions do not wake while Berth cannot attach to their Pods", permission: ATTACH },
    claim: {
      effect: "work waits and Pods are free, but Berth acknowledges nothing; read the operator's log",
      permission: null,
    },
  }),
  ...withReason("SessionsInterrupted", {
    beat: { effect: "sessions lose their leases while the Work API accepts no heartbeats", permission: null },
    sleep: {
      effect: "sessions lose their Pods after each work item while Berth cannot mark Pods as sleeping",
      permission: "patch Pods",
    },
    touch: {
      effect: "Pods do not show their session, and can be evicted, while Berth cannot change them",
      permission: "patch Pods",
    },
  }),
  ...withReason("CleanupFailing", {
    fence: { effect: "ended sessions stay active while the Work API accepts no heartbeats", permission: null },
    stop: { effect: "ended sessions stay active while Berth cannot stop work items", permission: null },
    settled: {
      effect: "ended sessions keep their Secrets and Pods while Berth cannot delete or change these",
      permission: "delete Secrets and patch Pods",
    },
    drop: {
      effect: "Pods stay reserved while Berth cannot delete the Secrets of failed claims",
      permission: "delete Secrets",
    },
    "delete-pod": {
      effect: "Pods count towards maxConcurrent while Berth cannot delete them",
      permission: "delete Pods",
    },
    release: {
      effect: "the Environment cannot be deleted while Berth cannot remove its finalizer",
      permission: "patch Environments",
    },
  }),
  ...withReason("StatusOutdated", {
    status: { effect: "the status stays old while Berth cannot write it", permission: "patch environments/status" },
  }),
};

function withReason<N extends string>(
  reason: ConditionReason,
  steps: Readonly<Record<N, Omit<StepInfo, "reason">>>,
): Record<N, StepInfo> {
  const infos = Object.entries<Omit<StepInfo, "reason">>(steps).map(([name, info]) => [name, { reason, ...info }]);
  return Object.fromEntries(infos);
}

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
