/** The same values as in metav1.Condition. */
export type ConditionStatus = "True" | "False" | "Unknown";

/** A condition's topic and its good status, so that monitors need no list of exceptions. */
interface ConditionInfo {
  readonly good: "True" | "False";
  readonly description: string;
}

/**
 * All conditions. A new one also needs its reasons (condition-reasons.ts), and the room that decides it: the runtimes'
 * verdicts.ts, or reconcile/environment-conditions.ts, which puts them all together.
 */
export const CONDITIONS = {
  Ready: {
    good: "True",
    description: "Whether Berth serves work as the spec says.",
  },
  Authenticated: { good: "True", description: "Whether the environment key exists and the Work API accepts it." },
  QueueReachable: { good: "True", description: "Whether the Work API answers for this environment." },
  TemplateAccepted: { good: "True", description: "Whether the API server accepts Pods of the template." },
  NetworkPolicyReady: {
    good: "True",
    description: "Whether the NetworkPolicy of the Pods matches the spec. Berth creates no Pod without it.",
  },
  CapacityAvailable: {
    good: "True",
    description: "Whether Pods can be created and get ready: quota, scheduling, image pulls.",
  },
  SessionsStarting: { good: "True", description: "Whether containers of the current template start their sessions." },
  ScalingActive: { good: "True", description: "Whether the number of workers follows the demand (workers mode)." },
  CredentialMissing: { good: "False", description: "Whether work items came without the secret that their Pod needs." },
  PollersExpected: {
    good: "True",
    description: "Whether only expected clients poll the queue, and ready workers do.",
  },
} as const satisfies Record<string, ConditionInfo>;

/**
 * Conditions that repeat `Ready` for the rules of kstatus, by which Flux and other tools wait. They are absent unless
 * they are True: https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
 */
export const KSTATUS_CONDITIONS = {
  Reconciling:
    "Not ready, but can get ready without a change of the spec or the key. Or ready, and the first Pod of a changed template is being prepared.",
  Stalled: "Not ready, and does not get ready before the spec, the key or the operator's settings change.",
} as const;

export type KstatusCondition = keyof typeof KSTATUS_CONDITIONS;

export type ConditionType = keyof typeof CONDITIONS;
export const CONDITION_TYPES = Object.keys(CONDITIONS) as ConditionType[];

/** True when a condition has its good status, whichever that is. Unknown is not good. */
export function isGood(condition: { readonly type: string; readonly status: ConditionStatus }): boolean {
  const info: ConditionInfo | undefined = CONDITIONS[condition.type as ConditionType];
  return info !== undefined && condition.status === info.good;
}
