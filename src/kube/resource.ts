import type {
  ConfigMap,
  Deployment,
  KubeEvent,
  KubeObject,
  Lease,
  Namespace,
  NetworkPolicy,
  Node,
  PersistentVolumeClaim,
  Pod,
  PodDisruptionBudget,
  Secret,
} from "./objects.ts";

export type * from "./objects.ts";

/** A kind of objects and its place in the API. */
export interface Resource<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** Never set. Ties the type of the objects to the resource. */
  readonly object?: T;
}

/** `apiVersion` of a resource's objects: `v1`, `apps/v1`. */
export function apiVersionOf(resource: Resource): string {
  return resource.group === "" ? resource.version : `${resource.group}/${resource.version}`;
}

/** Path of one object, or of the collection if no name is given; of all namespaces if no namespace is given. */
export function resourcePath(resource: Resource, ref: { namespace?: string | undefined; name?: string } = {}): string {
  const segments = resource.group === "" ? ["api"] : ["apis", resource.group];
  segments.push(resource.version);
  if (resource.namespaced && ref.namespace !== undefined) segments.push("namespaces", ref.namespace);
  segments.push(resource.plural);
  if (ref.name !== undefined) segments.push(ref.name);
  return `/${segments.map(encodeURIComponent).join("/")}`;
}

function kind<T extends KubeObject>(api: string, plural: string, kind: string, namespaced = true): Resource<T> {
  const [version = "", group = ""] = api.split("/").reverse();
  return { group, version, plural, kind, namespaced };
}

export const PODS = kind<Pod>("v1", "pods", "Pod");
export const PERSISTENT_VOLUME_CLAIMS = kind<PersistentVolumeClaim>(
  "v1",
  "persistentvolumeclaims",
  "PersistentVolumeClaim",
);
export const SECRETS = kind<Secret>("v1", "secrets", "Secret");
export const CONFIG_MAPS = kind<ConfigMap>("v1", "configmaps", "ConfigMap");
export const EVENTS = kind<KubeEvent>("v1", "events", "Event");
export const SERVICE_ACCOUNTS = kind<KubeObject>("v1", "serviceaccounts", "ServiceAccount");
export const NODES = kind<Node>("v1", "nodes", "Node", false);
export const NAMESPACES = kind<Namespace>("v1", "namespaces", "Namespace", false);
export const LEASES = kind<Lease>("coordination.k8s.io/v1", "leases", "Lease");
export const DEPLOYMENTS = kind<Deployment>("apps/v1", "deployments", "Deployment");
export const POD_DISRUPTION_BUDGETS = kind<PodDisruptionBudget>(
  "policy/v1",
  "poddisruptionbudgets",
  "PodDisruptionBudget",
);
export const NETWORK_POLICIES = kind<NetworkPolicy>("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy");
export const CRDS = kind("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", false);
