import { type ConditionStatus, type ConditionType, isGood } from "./condition-types.ts";
import {
  END_REASONS,
  type EndReason,
  EVENT_REASONS,
  type EventOnlyReason,
  type EventType,
  NOTHING,
  type ReasonInfo,
} from "./reasons.ts";

const FIX_STEP =
  "Fix what the message names. The metric berth_failing_steps shows which steps fail, and the operator's log shows each attempt.";

/** A reason of a condition: the condition's type and status, with texts for a person. */
export interface ConditionReasonInfo extends ReasonInfo {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  /** The Environment can't get ready before its spec, its key or the operator's settings change. */
  readonly stalls?: true;
  /** Type of its Event. By default, a good status gives Normal and any other gives Warning. */
  readonly event?: EventType;
}

/**
 * Every reason of a condition. Events about a condition use the same reasons. `Ready` has its own reasons, and takes
 * those of conditions that block it.
 */
export const REASONS = {
  // Ready
  Ready: { type: "Ready", status: "True", description: "Berth serves work as the spec says.", fix: NOTHING },
  Paused: {
    type: "Ready",
    status: "False",
    description: "The spec sets paused. Running sessions continue.",
    fix: "Set paused: false to serve work again.",
    event: "Normal",
  },
  Deleting: {
    type: "Ready",
    status: "False",
    description: "The Environment is being deleted, and running sessions drain.",
    fix: "Wait: the deletion ends at most 60 s after deletionGraceSeconds.",
    event: "Normal",
  },
  NothingStarts: {
    type: "Ready",
    status: "False",
    description:
      "Sessions neither start nor wake, or workers are not scaled: a step for it has failed for 45 seconds, or cannot succeed before you fix it.",
    fix: FIX_STEP,
  },
  SessionsInterrupted: {
    type: "Ready",
    status: "False",
    description:
      "Sessions lose their leases or Pods: a step that they need has failed for 45 seconds, or cannot succeed before you fix it.",
    fix: FIX_STEP,
  },
  CleanupFailing: {
    type: "Ready",
    status: "False",
    description:
      "Ended sessions keep their Pods, Secrets or places, or the finalizer stays. A step has failed for 45 seconds, or cannot succeed before you fix it.",
    fix: FIX_STEP,
  },
  StatusOutdated: {
    type: "Ready",
    status: "False",
    description: "The operator misses changes in the cluster, or cannot write the status. All conditions may be old.",
    fix: FIX_STEP,
  },
  Pending: {
    type: "Ready",
    status: "Unknown",
    description: "The operator has not checked the Environment yet.",
    fix: "Wait a moment. If this stays, check that the operator runs.",
    event: "Normal",
  },
  PreparingFirstPod: {
    type: "Ready",
    status: "False",
    description:
      "No Pod of the template has become ready yet, although warm is above 0. While sessions of an earlier template run, Ready stays True, and only Reconciling has this reason.",
    fix: "Wait: after prepareTimeoutSeconds at most, CapacityAvailable says why no Pod becomes ready.",
    event: "Normal",
  },
  EnvironmentIdShared: {
    type: "Ready",
    status: "False",
    stalls: true,
    description: "Berth serves an older Environment with the same environmentId, and this one gets no sessions.",
    fix: "Delete one of the two, or create this one again with its own environmentId.",
  },
  AwaitingSessions: {
    type: "Ready",
    status: "False",
    description: "Another Environment served this environmentId before, and its last sessions still run.",
    fix: "Wait until they have ended.",
    event: "Normal",
  },
  InvalidSpec: {
    type: "Ready",
    status: "False",
    stalls: true,
    description: "Another version wrote the object, or it breaks a rule that only the operator checks.",
    fix: "Correct the field that the message names, or run the operator version that belongs to the installed CRD.",
  },
  // Authenticated
  KeyAccepted: {
    type: "Authenticated",
    status: "True",
    description: "The Work API accepts the key.",
    fix: NOTHING,
  },
  KeyRejected: {
    type: "Authenticated",
    status: "False",
    stalls: true,
    description: "The Work API refuses the key (401 or 403).",
    fix: "Put a valid key into the Secret that api.keySecretRef names: polling starts again as soon as it changes. A key that was valid before is tried again automatically within 10 minutes.",
  },
  KeySecretMissing: {
    type: "Authenticated",
    status: "False",
    description: "The Secret that api.keySecretRef names does not exist in the namespace.",
    fix: "Create the Secret, or correct api.keySecretRef.name.",
  },
  KeyMissing: {
    type: "Authenticated",
    status: "False",
    stalls: true,
    description: "The Secret lacks the key that api.keySecretRef names.",
    fix: "Add the key to the Secret, or correct api.keySecretRef.key.",
  },
  KeyEmpty: {
    type: "Authenticated",
    status: "False",
    stalls: true,
    description: "The key is empty, or has characters that an HTTP header cannot contain.",
    fix: "Put the environment key there, without quotes or line breaks.",
  },
  KeySecretUnreadable: {
    type: "Authenticated",
    status: "Unknown",
    description: "The operator lacks permission to read the Secret, or the API server did not answer.",
    fix: "Give the operator permission to get Secrets in this namespace (the chart's namespaces value).",
  },
  KeyUnchecked: {
    type: "Authenticated",
    status: "Unknown",
    description: "The Work API has not answered a request with the key yet.",
    fix: "See the condition QueueReachable.",
    event: "Normal",
  },
  // QueueReachable
  Reachable: { type: "QueueReachable", status: "True", description: "The Work API answers.", fix: NOTHING },
  Unreachable: {
    type: "QueueReachable",
    status: "False",
    description: "The Work API does not answer: no connection, a timeout, or a server error.",
    fix: "Check that the operator's Pod can reach api.baseUrl (network policy, proxy, CA). Berth tries again with backoff.",
  },
  EnvironmentNotFound: {
    type: "QueueReachable",
    status: "False",
    stalls: true,
    description: "The Work API has no environment with this id for this key.",
    fix: "Compare spec.environmentId with the console. It cannot be changed: create another Environment for another id.",
  },
  RateLimited: {
    type: "QueueReachable",
    status: "False",
    description: "The Work API answers 429: your organization sends too many requests.",
    fix: "Give the Environments of one organization the same api.budgetGroup. Berth slows down automatically.",
  },
  OriginNotAllowed: {
    type: "QueueReachable",
    status: "False",
    stalls: true,
    description: "The operator sends no keys to api.baseUrl, because its list of origins does not contain it.",
    fix: "Add the origin to the chart's allowedApiOrigins (the flag --allowed-api-origins), or create the Environment with another api.baseUrl.",
  },
  BadReply: {
    type: "QueueReachable",
    status: "False",
    description: "The Work API sent a malformed answer or work item.",
    fix: "Check that api.baseUrl is the API itself and not a proxy's page; otherwise update Berth. If the message names an item, stop it in the platform.",
  },
  QueueUnchecked: {
    type: "QueueReachable",
    status: "Unknown",
    description: "The operator has not sent a request yet.",
    fix: "See the conditions Authenticated and TemplateAccepted, which come first.",
    event: "Normal",
  },
  // TemplateAccepted
  Accepted: {
    type: "TemplateAccepted",
    status: "True",
    description: "The API server accepted a Pod in a dry run.",
    fix: NOTHING,
  },
  AcceptedWithWarning: {
    type: "TemplateAccepted",
    status: "True",
    description: "The API server accepted a Pod, with a warning.",
    fix: "Set the field that the message names: requests if there are only limits, or another imagePullPolicy than Always with parking: Key.",
    event: "Warning",
  },
  Refused: {
    type: "TemplateAccepted",
    status: "False",
    stalls: true,
    description: "The API server refuses Pods of the template; the message has its error.",
    fix: "Correct the field that the message names.",
  },
  AdmissionRefused: {
    type: "TemplateAccepted",
    status: "False",
    stalls: true,
    description: "An admission policy refuses Pods of the template; the message has its error.",
    fix: "Change the template to fit the policy, or ask the cluster's administrator.",
  },
  TemplateForbidden: {
    type: "TemplateAccepted",
    status: "False",
    stalls: true,
    description:
      "The operator's Pod policy forbids a field of the template. Warm Pods are removed; running sessions continue.",
    fix: "Remove the field that the message names, or ask the cluster's administrator to allow it with the chart's podPolicy.",
  },
  TemplateUnchecked: {
    type: "TemplateAccepted",
    status: "Unknown",
    description: "The dry run has not been answered yet.",
    fix: "Check that the operator has permission to create Pods in this namespace, and that the API server answers.",
  },
  // NetworkPolicyReady
  PolicyInPlace: {
    type: "NetworkPolicyReady",
    status: "True",
    description: "The NetworkPolicy is in place. The cluster's network must enforce it.",
    fix: NOTHING,
  },
  PolicyNotWanted: {
    type: "NetworkPolicyReady",
    status: "True",
    description: "The spec sets network.policy: None.",
    fix: NOTHING,
  },
  PolicyFailing: {
    type: "NetworkPolicyReady",
    status: "False",
    description: "The operator cannot read or write the NetworkPolicy, so it creates no Pod and claims nothing.",
    fix: "Give the operator permission to get, create, patch and delete NetworkPolicies in this namespace, or fix what the message names; or set network.policy: None.",
  },
  PolicyUnchecked: {
    type: "NetworkPolicyReady",
    status: "Unknown",
    description: "The operator has not checked the NetworkPolicy yet.",
    fix: "Wait a moment. If this stays, see the operator's log.",
    event: "Normal",
  },
  // CapacityAvailable
  Available: {
    type: "CapacityAvailable",
    status: "True",
    description: "Pods can be created and get ready.",
    fix: NOTHING,
  },
  AtMaximum: {
    type: "CapacityAvailable",
    status: "True",
    description: "All Pods that maxConcurrent allows are in use, and more work waits.",
    fix: "Raise maxConcurrent to run more sessions at a time.",
  },
  CapacityUnchecked: {
    type: "CapacityAvailable",
    status: "Unknown",
    description: "No Pod of the current template has become ready yet.",
    fix: NOTHING,
    event: "Normal",
  },
  QuotaExceeded: {
    type: "CapacityAvailable",
    status: "False",
    description: "A ResourceQuota of the namespace leaves no room for a Pod.",
    fix: "Raise the quota, or lower maxConcurrent or the template's requests.",
  },
  Unschedulable: {
    type: "CapacityAvailable",
    status: "False",
    description: "The scheduler finds no node for a Pod; the message has its reason. An autoscaler may be adding one.",
    fix: "Add nodes, or change the template's requests, selectors and tolerations.",
  },
  SchedulingGated: {
    type: "CapacityAvailable",
    status: "False",
    description: "A Pod has waited for its scheduling gates, which another controller such as Kueue removes.",
    fix: "Check the controllers that the gates are named after, and their quotas. Warm and sleeping Pods count towards them.",
  },
  ImagePullFailing: {
    type: "CapacityAvailable",
    status: "False",
    description: "The image cannot be pulled; the message has the kubelet's error.",
    fix: "Correct the image's name, or its imagePullSecrets.",
  },
  PreparationFailing: {
    type: "CapacityAvailable",
    status: "False",
    description: "Pods do not get ready within prepareTimeoutSeconds; the message has the reason.",
    fix: "Describe a Pod of the Environment with kubectl. Raise prepareTimeoutSeconds if Pods only need more time.",
  },
  AttachFailing: {
    type: "CapacityAvailable",
    status: "False",
    description: "The operator cannot attach to waiting Pods to give them a session.",
    fix: "If the API server refuses it, give the operator get and create on pods/attach (the chart's rbac.attach), or set spec.sessions.parking: Key. Otherwise check the Pod and its node's kubelet.",
  },
  // SessionsStarting
  Starting: {
    type: "SessionsStarting",
    status: "True",
    description: "Containers of the current template start their sessions.",
    fix: NOTHING,
  },
  NoSessionYet: {
    type: "SessionsStarting",
    status: "Unknown",
    description: "No session of the current template has started yet.",
    fix: NOTHING,
    event: "Normal",
  },
  StartsFailing: {
    type: "SessionsStarting",
    status: "False",
    description:
      "Several sessions in a row did not start, so Berth claims only an occasional probe, also of sessions that sleep.",
    fix: "Fix what the message names: the image, the template, or what refuses the operator's requests. Berth tries a changed spec at once.",
  },
  // ScalingActive
  ScalingFollowsDemand: {
    type: "ScalingActive",
    status: "True",
    description: "The number of workers follows the demand.",
    fix: NOTHING,
  },
  ScaleDownHeld: {
    type: "ScalingActive",
    status: "True",
    description: "Fewer workers are needed, but Berth ends none, because Kubernetes could choose a busy one.",
    fix: "Wait for the sessions to end. Give workers a busyProbe, and check workers that are not Ready or do not answer it.",
  },
  DemandUnread: {
    type: "ScalingActive",
    status: "Unknown",
    description: "The operator has not read the demand yet.",
    fix: "See the conditions Authenticated and QueueReachable, which come first.",
    event: "Normal",
  },
  ReadingStale: {
    type: "ScalingActive",
    status: "False",
    description: "The last reading of the queue is too old, so the number of workers does not change.",
    fix: "See the conditions Authenticated and QueueReachable; the message says which reading is missing.",
  },
  ScalingFailed: {
    type: "ScalingActive",
    status: "False",
    description: "The operator cannot read or write the workers' Deployments.",
    fix: "Give the operator permission to create, patch and delete Deployments and to patch Pods in this namespace; the message has the API server's error.",
  },
  // CredentialMissing
  CredentialMissing: {
    type: "CredentialMissing",
    status: "True",
    stalls: true,
    description:
      "Work items came without their own secret, so Berth stopped them. After three in a row, it pauses claiming.",
    fix: "Set credential: EnvironmentKey if this environment issues no secrets per item.",
  },
  CredentialUnchecked: {
    type: "CredentialMissing",
    status: "Unknown",
    description: "No work item has come yet.",
    fix: NOTHING,
    event: "Normal",
  },
  CredentialsPresent: {
    type: "CredentialMissing",
    status: "False",
    description: "Work items come with their own secret, or need none.",
    fix: NOTHING,
  },
  // PollersExpected
  PollersExpected: {
    type: "PollersExpected",
    status: "True",
    description: "Only expected clients poll the queue.",
    fix: NOTHING,
  },
  OtherPollers: {
    type: "PollersExpected",
    status: "False",
    description: "Other clients also poll the queue, and receive some of its items.",
    fix: "Stop the other pollers. If they are expected, such as those of another cluster, set spec.api.otherPollers.",
  },
  NoPollers: {
    type: "PollersExpected",
    status: "False",
    description: "Workers are ready and not busy, but none polls the queue.",
    fix: "Read the log of a worker. Check its environment key and its access to the Work API.",
  },
  PollersUnknown: {
    type: "PollersExpected",
    status: "Unknown",
    description: "The Work API has not reported the queue's pollers.",
    fix: NOTHING,
    event: "Normal",
  },
} as const satisfies Record<string, ConditionReasonInfo>;

export type ConditionReason = keyof typeof REASONS;

/** Every reason that Berth's Events can have. */
export type EventReason = ConditionReason | EndReason | EventOnlyReason;

/** Type of the Event of a reason. A Warning needs a person's attention. */
export function eventType(reason: EventReason): EventType {
  // A reason of both kinds (CredentialMissing) is a Warning in both.
  if (Object.hasOwn(END_REASONS, reason)) return END_REASONS[reason as EndReason].failed ? "Warning" : "Normal";
  if (Object.hasOwn(EVENT_REASONS, reason))
    return EVENT_REASONS[reason as EventOnlyReason].warning ? "Warning" : "Normal";
  const info: ConditionReasonInfo = REASONS[reason as ConditionReason];
  return info.event ?? (isGood(info) ? "Normal" : "Warning");
}
