/** Names that Berth writes into a cluster. They are part of its public interface: change them only with the API version. */
import { createHash } from "node:crypto";

export const GROUP = "berth.dev";
export const VERSION = "v1alpha1";
export const API_VERSION = `${GROUP}/${VERSION}`;
export const KIND = "Environment";
export const PLURAL = "environments";

/** The Environment that a Pod or a Secret belongs to, by name. */
export const LABEL_ENVIRONMENT = "berth.dev/environment";
/** `session` or `worker`; `operator` on the operator's own Pods, so that NetworkPolicies can let it in. */
export const LABEL_ROLE = "berth.dev/role";
/** `parked`, `assigned` or `finished`. */
export const LABEL_PHASE = "berth.dev/phase";
/** The work item, or a hash of its id where that is no valid label value (the whole id is in the annotation then). */
export const LABEL_WORK_ID = "berth.dev/work-id";
/** The session, as with the work id. */
export const LABEL_SESSION_ID = "berth.dev/session-id";
/** Hash of the Pod template that a Pod was made from. */
export const LABEL_TEMPLATE_HASH = "berth.dev/template-hash";
export const LABEL_MANAGED_BY = "app.kubernetes.io/managed-by";

/** The container of a Pod that a session or a worker runs in, resolved before admission: injected sidecars may come first. */
export const ANNOTATION_SESSION_CONTAINER = "berth.dev/session-container";
export const ANNOTATION_WORK_ID = "berth.dev/work-id";
export const ANNOTATION_SESSION_ID = "berth.dev/session-id";
/** Who beats for the sessions of this Pod: its program was written for that, so it is fixed when the Pod is made. */
export const ANNOTATION_LEASE = "berth.dev/lease";
/** The `api.baseUrl` that this Pod's program is told: it serves items of that Work API only. */
export const ANNOTATION_API = "berth.dev/api";
/**
 * What this Pod's template asks for beyond what every template may have, as a list in JSON: an operator with a stricter
 * policy gives it no session.
 */
export const ANNOTATION_NEEDS = "berth.dev/needs";
/** Where a worker Pod is asked whether it is busy: port and path, as `9000/busy`. Another template may have another probe. */
export const ANNOTATION_BUSY_PROBE = "berth.dev/busy-probe";
/** For people who find a waiting Pod and wonder. */
export const ANNOTATION_ABOUT = "berth.dev/about";
/** On a session's Pod that mounts its session's volume: the PersistentVolumeClaim. Its session id is an annotation, too. */
export const ANNOTATION_WORKSPACE = "berth.dev/workspace";
/** On a session's volume: RFC 3339 time since when no Pod uses it. Absent: one does, or is about to. */
export const ANNOTATION_LAST_USED = "berth.dev/last-used";
/** Why a finished Pod ended: a reason of the closed set, and a message. */
export const ANNOTATION_END_REASON = "berth.dev/end-reason";
export const ANNOTATION_END_MESSAGE = "berth.dev/end-message";
/** On a finished Pod that did not get to serve. */
export const ANNOTATION_START_FAILURE = "berth.dev/start-failure";
/** On a finished Pod: how many starts of its template had failed in a row by then. A restart finds its breaker by the newest. */
export const ANNOTATION_START_FAILURES = "berth.dev/start-failures";
/** RFC 3339 time at which a finished Pod is deleted at the earliest. */
export const ANNOTATION_FINISHED_AT = "berth.dev/finished-at";

export const ANNOTATION_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container";
export const ANNOTATION_SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict";
export const ANNOTATION_DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt";
/** Which Pods a ReplicaSet ends first: those of the lowest cost, 0 where unset. */
export const ANNOTATION_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost";

/** Holds an Environment until none of its work items is claimed any more. */
export const FINALIZER = "berth.dev/drain";

/** The one Lease of leader election, or what the names of all Leases begin with. */
export const LEASE_NAME = "berth";

export const FIELD_MANAGER = "berth";

export type Role = "session" | "worker" | "operator";
export type PodPhaseLabel = "parked" | "assigned" | "finished";

/** The init container that parks a Pod under `parking: Init`; the last one of the Pod. */
export const GATE_CONTAINER = "berth-gate";
/** The volume that shows the gate, and under `secretDelivery: File` the session container, a key of the claim's Secret. */
export const CLAIM_VOLUME = "berth-claim";

/** The volume of a session's Pod that its workspace is in. */
export const WORKSPACE_VOLUME = "berth-workspace";

/**
 * Environment variables of the session container that Berth sets for each session. A template that set one would hand
 * a session somebody else's identity, so it is refused.
 */
export const RESERVED_ENV = [
  "ANTHROPIC_ENVIRONMENT_ID",
  "ANTHROPIC_ENVIRONMENT_KEY",
  "ANTHROPIC_SESSION_ID",
  "ANTHROPIC_WORK_ID",
  "ANTHROPIC_WORK_SECRET",
  "ANTHROPIC_WORK_SECRET_FILE",
] as const;

/** The keys of the Secret's data. The three that a container reads come first. */
export const KEY_WORK_ID = "work-id";
export const KEY_SESSION_ID = "session-id";
/** The one that the session container waits for: written only when the item is acknowledged. */
export const KEY_WORK_SECRET = "work-secret";

/** What the API server takes as a label value: at most 63 characters of a small alphabet. */
const LABEL_VALUE = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

const HASH_LENGTH = 40;

/**
 * An id as a label value: itself where it is valid, else a hash of it. Ids from the Work API are opaque, so nothing may
 * depend on their alphabet; the whole id goes into an annotation of the same name.
 */
export function toLabelValue(id: string): string {
  if (LABEL_VALUE.test(id)) return id;
  return `h-${createHash("sha256").update(id).digest("hex").slice(0, HASH_LENGTH)}`;
}

/** Written together with it. */
export const KEY_ACKNOWLEDGED_AT = "acknowledged-at";
