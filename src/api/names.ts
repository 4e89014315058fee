/**
 * Names that Berth writes into a cluster. They are part of its public interface: change them only with the API version.
 */
import { createHash } from "node:crypto";

export const GROUP = "berth.dev";
export const VERSION = "v1alpha1";
export const API_VERSION = `${GROUP}/${VERSION}`;
export const KIND = "Environment";
export const PLURAL = "environments";

/** The name of the Environment that a Pod or a Secret belongs to. */
export const LABEL_ENVIRONMENT = "berth.dev/environment";
/** `session` or `worker`; `operator` on the operator's own Pods, so that NetworkPolicies can admit it. */
export const LABEL_ROLE = "berth.dev/role";
/** `warm` (also while it is prepared), `running`, `sleeping` or `ended`. */
export const LABEL_PHASE = "berth.dev/phase";
/** The id of the work item, or a hash of it if the id is no valid label value. The annotation then has the whole id. */
export const LABEL_WORK_ID = "berth.dev/work-id";
/** The id of the session, with the same rule. */
export const LABEL_SESSION_ID = "berth.dev/session-id";
/** Hash of the Pod template that a Pod was made from. */
export const LABEL_TEMPLATE_HASH = "berth.dev/template-hash";
export const LABEL_MANAGED_BY = "app.kubernetes.io/managed-by";
export const LABEL_NAME = "app.kubernetes.io/name";
export const LABEL_PART_OF = "app.kubernetes.io/part-of";
/** The general labels of a Pod, which those of its template override. */
export const generalLabels = (role: "session" | "worker") => ({
  [LABEL_NAME]: `berth-${role}`,
  [LABEL_PART_OF]: "berth",
});
/** On every object that the operator creates. */
export const OWN_LABELS = { [LABEL_MANAGED_BY]: "berth", [LABEL_PART_OF]: "berth" } as const;

/**
 * The container in which a session or a worker runs. Resolved before admission, since injected sidecars may come first.
 */
export const ANNOTATION_SESSION_CONTAINER = "berth.dev/session-container";
export const ANNOTATION_WORK_ID = "berth.dev/work-id";
export const ANNOTATION_SESSION_ID = "berth.dev/session-id";
/**
 * The client that sends the heartbeats for this Pod's sessions. It depends on the Pod's program, so it does not change.
 */
export const ANNOTATION_LEASE = "berth.dev/lease";
/** How the Pod waits for its session: `Shell` or `Program`. Pods without it wait for a key of their Secret. */
export const ANNOTATION_PARKING = "berth.dev/parking";
/** On the same Pods: which credential their program takes, `WorkSecret` or `EnvironmentKey`. */
export const ANNOTATION_CREDENTIAL = "berth.dev/credential";
/**
 * RFC 3339 time at which a Pod with a waiting shell or program was assigned to its session, by the API server's clock.
 * Its container started earlier, so the session counts from this time.
 */
export const ANNOTATION_ASSIGNED_AT = "berth.dev/assigned-at";
/** On a Pod whose session sleeps between work items: the number of the last turn that ended; `0` at first. */
export const ANNOTATION_ENDED_TURN = "berth.dev/ended-turn";
/**
 * On the same Pods: the id of the container that the last claimed turn waited in. A kubelet that has lost a container's
 * record starts it again under another id.
 */
export const ANNOTATION_TURN_CONTAINER = "berth.dev/turn-container";
/** On the same Pods: the script of the shells that wait for work items. */
export const ANNOTATION_TURN_SCRIPT = "berth.dev/turn-script";
/** On the same Pods: when the keeper ends the Pod if no operator does, in seconds since the epoch. */
export const ANNOTATION_DEADLINE = "berth.dev/deadline";
/** On a sleeping Pod: RFC 3339 times, since when it sleeps and until when it is kept. */
export const ANNOTATION_SLEEPS_SINCE = "berth.dev/sleeps-since";
export const ANNOTATION_SLEEPS_UNTIL = "berth.dev/sleeps-until";
/**
 * What this Pod's template requests beyond the permissions of every template, as a JSON list. An operator with a
 * stricter policy gives the Pod no session.
 */
export const ANNOTATION_NEEDS = "berth.dev/needs";
/** Port and path of a worker Pod's busy probe, such as `9000/busy`. Another template may have another probe. */
export const ANNOTATION_BUSY_PROBE = "berth.dev/busy-probe";
/** An explanation for people who find a waiting Pod. */
export const ANNOTATION_ABOUT = "berth.dev/about";
/** On a Pod that mounts a session's volume: the PersistentVolumeClaim. If it has a session, its id is an annotation. */
export const ANNOTATION_WORKSPACE = "berth.dev/workspace";
/** On a warm Pod's volume that no session was given yet: "true". */
export const ANNOTATION_UNASSIGNED = "berth.dev/unassigned";
/** On a volume: RFC 3339 time of a write that only makes the API server refuse earlier requests. */
export const ANNOTATION_ADOPTED_AT = "berth.dev/adopted-at";
/** On a session's volume: RFC 3339 time of its last use by a Pod. Absent while a Pod uses it or is about to. */
export const ANNOTATION_LAST_USED = "berth.dev/last-used";
/** Why a Pod ended: a reason of the closed set, and a message. */
export const ANNOTATION_END_REASON = "berth.dev/end-reason";
export const ANNOTATION_END_MESSAGE = "berth.dev/end-message";
/** On an ended Pod that never started to serve. */
export const ANNOTATION_START_FAILURE = "berth.dev/start-failure";
/**
 * On an ended Pod: the number of starts of its template that had failed in a row. A restarted operator restores its
 * count from the newest Pod.
 */
export const ANNOTATION_START_FAILURES = "berth.dev/start-failures";
/** On an Environment: how often each item of the last 24 hours returned to the queue. */
export const ANNOTATION_RELEASES = "berth.dev/releases";
/** RFC 3339 time. An ended Pod is not deleted before it. */
export const ANNOTATION_ENDED_AT = "berth.dev/ended-at";

export const ANNOTATION_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container";
export const ANNOTATION_SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict";
export const ANNOTATION_DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt";
/** A ReplicaSet ends Pods of the lowest cost first; the default is 0. */
export const ANNOTATION_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost";

/** Keeps an Environment until none of its work items is claimed. */
export const FINALIZER = "berth.dev/drain";

/** The Lease of leader election, and the prefix of all Leases' names. */
export const LEASE_NAME = "berth";

export type Role = "session" | "worker" | "operator";

/** The volume through which a keeper reads its deadline. */
export const KEEPER_VOLUME = "berth-keeper";

/** The volume of a session's Pod that holds its workspace. */
export const WORKSPACE_VOLUME = "berth-workspace";

/**
 * Environment variables that Berth sets in the session container. A template that sets one is refused, since it could
 * give a session another session's identity.
 */
export const RESERVED_ENV = [
  "ANTHROPIC_ENVIRONMENT_ID",
  "ANTHROPIC_ENVIRONMENT_KEY",
  "ANTHROPIC_SESSION_ID",
  "ANTHROPIC_WORK_ID",
  "ANTHROPIC_WORK_SECRET",
] as const;

/** Keys of the Secret's data. Containers read the first three. */
export const KEY_WORK_ID = "work-id";
export const KEY_SESSION_ID = "session-id";
/** The key that the session container waits for. It is written only after the item is acknowledged. */
export const KEY_WORK_SECRET = "work-secret";

/** A valid label value: at most 63 characters of a small alphabet. */
const LABEL_VALUE = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

const HASH_LENGTH = 40;

/**
 * Returns an id as a label value: the id if it is valid, else a hash of it. Ids of the Work API are opaque, so nothing
 * may depend on their alphabet. The whole id goes into an annotation of the same name.
 */
export function toLabelValue(id: string): string {
  if (LABEL_VALUE.test(id)) return id;
  return `h-${createHash("sha256").update(id).digest("hex").slice(0, HASH_LENGTH)}`;
}

/** Written together with `KEY_WORK_SECRET`. */
export const KEY_ACKNOWLEDGED_AT = "acknowledged-at";
