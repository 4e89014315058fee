import { type ConditionStatus, type ConditionType, isGood } from "./condition-types.ts";
import {
  END_REASONS,
  type EndReason,
  EVENT_REASONS,
  type EventOnlyReason,
  type EventType,
  type ReasonInfo,
} from "./reasons.ts";

/** A reason of a condition: the condition's type and status, with texts for a person. */
export interface ConditionReasonInfo extends ReasonInfo {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  /** Type of its Event. By default, a good status gives Normal and any other gives Warning. */
  readonly event?: EventType;
}

const NOTHING = "Nothing to do.";

/**
 * Every reason of a condition. Events about a condition use the same reasons. `Ready` has its own reasons, and takes
 * those of conditions that block it.
 */
export const REASONS = {
  // Ready
  Ready: { type: "Ready", status: "True", description: "Work is served as the spec says.", mend: NOTHING },
  Paused: {
    type: "Ready",
    status: "False",
    description: "The spec says paused: nothing new is claimed, running sessions go on.",
    mend: "Set paused: false to serve work again.",
    event: "Normal",
  },
  Deleting: {
    type: "Ready",
    status: "False",
    description: "The Environment is being deleted: nothing new is claimed, running sessions drain.",
    mend: "Wait: it ends by itself at the latest 60 s after deletionGraceSeconds.",
    event: "Normal",
  },
  StepFailing: {
    type: "Ready",
    status: "False",
    description:
      "A step that sessions need has failed for 45 seconds, or fails in a way that only a person can fix; the message has the server's words.",
    mend: "Fix what the message names; the metric berth_failing_steps says which steps fail, and the operator's log each try.",
  },
  Pending: {
    type: "Ready",
    status: "Unknown",
    description: "The operator has seen the Environment and has not judged it yet.",
    mend: "Wait a moment; if it stays, look whether the operator runs.",
    event: "Normal",
  },
  InvalidSpec: {
    type: "Ready",
    status: "False",
    description: "The stored object does not fit this version's schema: it was written under an older or newer one.",
    mend: "Mend the field that the message names, or run the operator version that belongs to the installed CRD.",
  },
  // Authenticated
  KeyAccepted: {
    type: "Authenticated",
    status: "True",
    description: "The Work API accepts the environment key.",
    mend: NOTHING,
  },
  KeyRejected: {
    type: "Authenticated",
    status: "False",
    description: "The Work API refuses the environment key (401 or 403).",
    mend: "Put a valid key into the Secret that api.keySecretRef names: polling starts again as soon as it changes. A key that was good is tried again by itself within 10 minutes.",
  },
  KeySecretMissing: {
    type: "Authenticated",
    status: "False",
    description: "The Secret that api.keySecretRef names is not in the Environment's namespace.",
    mend: "Create the Secret, or mend api.keySecretRef.name.",
  },
  KeyMissing: {
    type: "Authenticated",
    status: "False",
    description: "The Secret is there but lacks the key that api.keySecretRef names.",
    mend: "Add the key to the Secret, or mend api.keySecretRef.key.",
  },
  KeyEmpty: {
    type: "Authenticated",
    status: "False",
    description: "The key in the Secret is empty, or nothing a header can carry.",
    mend: "Put the environment key there, without quotes or line breaks.",
  },
  KeySecretUnreadable: {
    type: "Authenticated",
    status: "Unknown",
    description: "The Secret could not be read: the operator may not, or the API server did not answer.",
    mend: "Give the operator permission to get Secrets in this namespace (the chart's namespaces value).",
  },
  KeyUnchecked: {
    type: "Authenticated",
    status: "Unknown",
    description: "The environment key was read and no request was answered with it yet.",
    mend: "See the condition QueueReachable.",
    event: "Normal",
  },
  // QueueReachable
  Reachable: { type: "QueueReachable", status: "True", description: "The Work API answers.", mend: NOTHING },
  Unreachable: {
    type: "QueueReachable",
    status: "False",
    description: "The Work API did not answer: no connection, a time-out, or a server error.",
    mend: "See that the operator's Pod may reach api.baseUrl (network policy, proxy, CA); it is tried again with backoff.",
  },
  EnvironmentNotFound: {
    type: "QueueReachable",
    status: "False",
    description: "The Work API knows no environment of this id for this key.",
    mend: "Compare environmentId with the console; it cannot be changed, so create another Environment for another id.",
  },
  RateLimited: {
    type: "QueueReachable",
    status: "False",
    description: "The Work API answers 429: the organization sends too many requests.",
    mend: "Give the Environments of one organization the same api.budgetGroup; it slows down by itself.",
  },
  OriginNotAllowed: {
    type: "QueueReachable",
    status: "False",
    description:
      "The operator was not told to send keys to the origin of api.baseUrl, which is plain http, leads to an inner address, or is not on its list.",
    mend: "Mend api.baseUrl, or add the origin to the chart's allowedApiOrigins (the flag --allowed-api-origins).",
  },
  BadReply: {
    type: "QueueReachable",
    status: "False",
    description: "The Work API answered with something that is not its contract, or with an item that is not.",
    mend: "See that api.baseUrl is the API itself and not a proxy's page; else update Berth. An item: stop it in the platform.",
  },
  QueueUnchecked: {
    type: "QueueReachable",
    status: "Unknown",
    description: "No request was sent yet.",
    mend: "See the conditions Authenticated and TemplateAccepted, which come first.",
    event: "Normal",
  },
  // TemplateAccepted
  Accepted: {
    type: "TemplateAccepted",
    status: "True",
    description: "The API server took a Pod of the template on a dry run.",
    mend: NOTHING,
  },
  AcceptedWithWarning: {
    type: "TemplateAccepted",
    status: "True",
    description: "The API server took a Pod of the template, with something worth a look.",
    mend: "The message says what; with parking: Key, imagePullPolicy: Always contacts the registry every few seconds while a Pod waits.",
    event: "Warning",
  },
  Refused: {
    type: "TemplateAccepted",
    status: "False",
    description: "The API server refuses Pods of the template; its words are in the message.",
    mend: "Mend the field that the message names.",
  },
  AdmissionRefused: {
    type: "TemplateAccepted",
    status: "False",
    description: "An admission policy of the cluster refuses Pods of the template; its words are in the message.",
    mend: "Mend the template to fit the policy, or ask the cluster's administrator.",
  },
  TemplateForbidden: {
    type: "TemplateAccepted",
    status: "False",
    description:
      "The template asks for what the operator's policy for Pods does not allow; free Pods of it are removed, running sessions go on.",
    mend: "Leave out the field that the message names, or have the cluster's administrator allow it by the chart's podPolicy.",
  },
  TemplateUnchecked: {
    type: "TemplateAccepted",
    status: "Unknown",
    description: "The dry run got no answer yet; it is tried again.",
    mend: "See that the operator may create Pods in this namespace and that the API server answers.",
  },
  // NetworkPolicyReady
  PolicyInPlace: {
    type: "NetworkPolicyReady",
    status: "True",
    description: "The NetworkPolicy is in place; whether it is enforced is for the cluster's network.",
    mend: NOTHING,
  },
  PolicyNotWanted: {
    type: "NetworkPolicyReady",
    status: "True",
    description: "No NetworkPolicy is kept, since network.policy is None.",
    mend: NOTHING,
  },
  PolicyFailing: {
    type: "NetworkPolicyReady",
    status: "False",
    description:
      "The NetworkPolicy could not be read or written, so no Pod is made and nothing is claimed; it is tried again.",
    mend: "Give the operator permission to get, create, patch and delete NetworkPolicies in this namespace, or mend what the message names; or set network.policy: None.",
  },
  PolicyUnchecked: {
    type: "NetworkPolicyReady",
    status: "Unknown",
    description: "The NetworkPolicy was not looked at yet.",
    mend: "Wait a moment; if it stays, see the operator's log.",
    event: "Normal",
  },
  // CapacityAvailable
  Available: {
    type: "CapacityAvailable",
    status: "True",
    description: "Pods can be made and get ready.",
    mend: NOTHING,
  },
  AtMaximum: {
    type: "CapacityAvailable",
    status: "True",
    description: "As many Pods as maxConcurrent allows are in use, and more work waits.",
    mend: "Raise maxConcurrent to serve more at a time.",
  },
  QuotaExceeded: {
    type: "CapacityAvailable",
    status: "False",
    description: "A ResourceQuota of the namespace leaves no room for a Pod.",
    mend: "Raise the quota, or lower maxConcurrent or the template's requests.",
  },
  Unschedulable: {
    type: "CapacityAvailable",
    status: "False",
    description: "The scheduler finds no node for a Pod; its words are in the message. A node may be on its way.",
    mend: "Add nodes, or mend the template's requests, selectors and tolerations.",
  },
  ImagePullFailing: {
    type: "CapacityAvailable",
    status: "False",
    description: "The image cannot be pulled; kubelet's words are in the message.",
    mend: "Mend the image's name, or its imagePullSecrets.",
  },
  PreparationFailing: {
    type: "CapacityAvailable",
    status: "False",
    description: "Pods do not get ready within prepareTimeoutSeconds, for a reason in the message.",
    mend: "Describe a Pod of the Environment; raise prepareTimeoutSeconds if it only takes longer.",
  },
  AttachFailing: {
    type: "CapacityAvailable",
    status: "False",
    description: "The operator can't attach to waiting Pods, so it can't give them a session.",
    mend: "If it is refused, allow the operator get and create on pods/attach (rbac.attach), or set spec.sessions.parking: Key; otherwise look at the Pod, and at its node's kubelet.",
  },
  // SessionsStarting
  Starting: {
    type: "SessionsStarting",
    status: "True",
    description: "Containers of the current template start when opened.",
    mend: NOTHING,
  },
  NoSessionYet: {
    type: "SessionsStarting",
    status: "Unknown",
    description: "No session of the current template was started yet.",
    mend: NOTHING,
    event: "Normal",
  },
  BreakerOpen: {
    type: "SessionsStarting",
    status: "False",
    description: "Several containers in a row did not start, so nothing is claimed but a probe now and then.",
    mend: "Mend the image or the template: a change of the spec is tried at once.",
  },
  // ScalingActive
  ScalingFollowsDemand: {
    type: "ScalingActive",
    status: "True",
    description: "The demand is known, and the number of workers follows it.",
    mend: NOTHING,
  },
  ScaleDownHeld: {
    type: "ScalingActive",
    status: "True",
    description: "Fewer workers are wanted, and none is ended, since one that is or may be busy could be hit.",
    mend: "Wait for the sessions to end; give workers a busyProbe, and look at workers that are not Ready or do not answer it.",
  },
  DemandUnread: {
    type: "ScalingActive",
    status: "Unknown",
    description: "The demand was not read yet.",
    mend: "See the conditions Authenticated and QueueReachable, which come first.",
    event: "Normal",
  },
  ReadingStale: {
    type: "ScalingActive",
    status: "False",
    description: "What was last read of the queue is too old to scale by: the number of workers stays what it is.",
    mend: "See the conditions Authenticated and QueueReachable; the message says which reading is missing.",
  },
  ScalingFailed: {
    type: "ScalingActive",
    status: "False",
    description: "The workers' Deployments could not be read or written; it is tried again.",
    mend: "Give the operator permission to create, patch and delete Deployments and to patch Pods in this namespace; the message has the API server's words.",
  },
  // CredentialMissing
  CredentialMissing: {
    type: "CredentialMissing",
    status: "True",
    description:
      "Work items came without a secret of their own and were stopped; after three in a row, claiming is paused.",
    mend: "Set credential: EnvironmentKey if this environment issues no secrets per item.",
  },
  CredentialsPresent: {
    type: "CredentialMissing",
    status: "False",
    description: "Work items come with their secret.",
    mend: NOTHING,
  },
  // EnvironmentIdShared
  EnvironmentIdShared: {
    type: "EnvironmentIdShared",
    status: "True",
    description: "Another Environment that this operator serves has the same environmentId: both take from one queue.",
    mend: "Keep one of them and delete the others, or create each with an environmentId of its own.",
  },
  EnvironmentIdUnique: {
    type: "EnvironmentIdShared",
    status: "False",
    description: "No other Environment that this operator serves has this environmentId.",
    mend: NOTHING,
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
