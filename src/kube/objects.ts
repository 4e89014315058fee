/**
 * Kubernetes objects as raw JSON. Only the fields that Berth reads are declared; undeclared fields survive every read
 * and write. Times are RFC 3339 strings, as on the wire.
 */

export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
  [field: string]: unknown;
}

export interface ObjectMeta {
  name?: string;
  generateName?: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
  finalizers?: string[];
  [field: string]: unknown;
}

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

/** Metadata of a list. */
export interface ListMeta {
  resourceVersion?: string;
  continue?: string;
  remainingItemCount?: number;
}

export interface KubeList<T extends KubeObject = KubeObject> {
  apiVersion?: string;
  kind?: string;
  metadata: ListMeta;
  items: T[];
}

/** A condition in the status of most kinds. */
export interface Condition {
  type: string;
  status: "True" | "False" | "Unknown" | (string & {});
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
  lastProbeTime?: string | null;
  observedGeneration?: number;
  [field: string]: unknown;
}

export interface Pod extends KubeObject {
  spec: PodSpec;
  status?: PodStatus;
}

export interface PodTemplate {
  metadata?: ObjectMeta;
  spec: PodSpec;
  [field: string]: unknown;
}

export interface PodSpec {
  containers: Container[];
  initContainers?: Container[];
  ephemeralContainers?: Container[];
  nodeName?: string;
  schedulingGates?: { name: string }[];
  restartPolicy?: string;
  activeDeadlineSeconds?: number;
  terminationGracePeriodSeconds?: number;
  serviceAccountName?: string;
  runtimeClassName?: string;
  volumes?: Record<string, unknown>[];
  [field: string]: unknown;
}

export interface Container {
  name: string;
  image?: string;
  imagePullPolicy?: string;
  command?: string[];
  args?: string[];
  env?: EnvVar[];
  [field: string]: unknown;
}

export interface EnvVar {
  name: string;
  value?: string;
  valueFrom?: {
    secretKeyRef?: { name?: string; key: string; optional?: boolean };
    fieldRef?: { apiVersion?: string; fieldPath: string };
    [field: string]: unknown;
  };
}

/** Phases of Pods that ended, which Kubernetes keeps. */
export const ENDED_PHASES: ReadonlySet<string> = new Set(["Succeeded", "Failed"]);

export interface PodStatus {
  phase?: "Pending" | "Running" | "Succeeded" | "Failed" | "Unknown" | (string & {});
  reason?: string;
  message?: string;
  conditions?: Condition[];
  startTime?: string;
  podIP?: string;
  hostIP?: string;
  qosClass?: string;
  containerStatuses?: ContainerStatus[];
  initContainerStatuses?: ContainerStatus[];
  ephemeralContainerStatuses?: ContainerStatus[];
  [field: string]: unknown;
}

export interface ContainerStatus {
  name: string;
  state?: ContainerState;
  lastState?: ContainerState;
  ready?: boolean;
  started?: boolean | null;
  restartCount?: number;
  image?: string;
  imageID?: string;
  containerID?: string;
  [field: string]: unknown;
}

/** The kubelet's reasons for a container whose image it pulls again: the registry may be away for a moment only. */
export const IMAGE_PULL_RETRIED: ReadonlySet<string> = new Set(["ErrImagePull", "ImagePullBackOff"]);

/**
 * And those for an image that it can't pull (the name is invalid, or `imagePullPolicy: Never` and it is missing), and for
 * a node that can't read an image or reach its registry.
 */
export const IMAGE_PROBLEMS: ReadonlySet<string> = new Set([
  ...IMAGE_PULL_RETRIED,
  ...["InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"],
]);

/** And those for a container that starts normally; any other is a problem to show. */
export const ORDINARY_WAITS: ReadonlySet<string> = new Set(["", "ContainerCreating", "PodInitializing"]);

/** Exactly one of the three is set; none means waiting. */
export interface ContainerState {
  waiting?: { reason?: string; message?: string };
  running?: { startedAt?: string | null };
  terminated?: ContainerStateTerminated;
}

export interface ContainerStateTerminated {
  exitCode: number;
  signal?: number;
  reason?: string;
  message?: string;
  startedAt?: string | null;
  finishedAt?: string | null;
  containerID?: string;
}

export interface Secret extends KubeObject {
  /** Base64. */
  data?: Record<string, string>;
  /** Plain text; write only: the API server turns it into `data`. */
  stringData?: Record<string, string>;
  type?: string;
  immutable?: boolean;
}

export interface PersistentVolumeClaim extends KubeObject {
  spec?: {
    accessModes?: string[];
    storageClassName?: string;
    volumeName?: string;
    resources?: { requests?: Record<string, string>; [field: string]: unknown };
    [field: string]: unknown;
  };
  status?: { phase?: "Pending" | "Bound" | "Lost" | (string & {}); [field: string]: unknown };
}

export interface ConfigMap extends KubeObject {
  data?: Record<string, string>;
}

export interface Lease extends KubeObject {
  spec?: LeaseSpec;
}

/** Times are MicroTime: RFC 3339 with six digits (see `microTime`). */
export interface LeaseSpec {
  holderIdentity?: string;
  leaseDurationSeconds?: number;
  acquireTime?: string;
  renewTime?: string;
  leaseTransitions?: number;
  [field: string]: unknown;
}

export interface Node extends KubeObject {
  spec?: { unschedulable?: boolean; taints?: Taint[]; [field: string]: unknown };
  status?: { conditions?: Condition[]; [field: string]: unknown };
}

export interface Taint {
  key: string;
  value?: string;
  effect: string;
  timeAdded?: string;
}

export interface Namespace extends KubeObject {
  spec?: Record<string, unknown>;
  status?: { phase?: string; conditions?: Condition[]; [field: string]: unknown };
}

export interface ObjectReference {
  apiVersion?: string;
  kind?: string;
  namespace?: string;
  name?: string;
  uid?: string;
  resourceVersion?: string;
  fieldPath?: string;
}

/** An Event of core/v1. */
export interface KubeEvent extends KubeObject {
  involvedObject: ObjectReference;
  type?: "Normal" | "Warning" | (string & {});
  reason?: string;
  message?: string;
  count?: number;
  firstTimestamp?: string | null;
  lastTimestamp?: string | null;
  source?: { component?: string; host?: string };
  reportingComponent?: string;
  reportingInstance?: string;
}

export interface Deployment extends KubeObject {
  spec: {
    replicas?: number;
    selector: { matchLabels?: Record<string, string>; [field: string]: unknown };
    template: PodTemplate;
    [field: string]: unknown;
  };
  status?: {
    observedGeneration?: number;
    replicas?: number;
    readyReplicas?: number;
    availableReplicas?: number;
    conditions?: Condition[];
    [field: string]: unknown;
  };
}

export interface PodDisruptionBudget extends KubeObject {
  spec?: {
    minAvailable?: number | string;
    maxUnavailable?: number | string;
    selector?: Record<string, unknown>;
    [field: string]: unknown;
  };
  status?: Record<string, unknown>;
}

export interface NetworkPolicy extends KubeObject {
  spec?: {
    podSelector?: Record<string, unknown>;
    policyTypes?: string[];
    ingress?: Record<string, unknown>[];
    egress?: Record<string, unknown>[];
    [field: string]: unknown;
  };
}

/**
 * RFC 3339 with six digits, the format of the API's MicroTime: Go's decoder accepts no other number of digits for a
 * Lease.
 * @param ms milliseconds since the epoch
 */
export function microTime(ms: number): string {
  return new Date(ms).toISOString().replace("Z", "000Z");
}

/** RFC 3339 in whole seconds, the format of the API's Time. */
export function apiTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}
