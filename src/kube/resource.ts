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

function core<T extends KubeObject>(plural: string, kind: string, namespaced = true): Resource<T> {
  return { group: "", version: "v1", plural, kind, namespaced };
}

export const PODS = core<Pod>("pods", "Pod");
export const PERSISTENT_VOLUME_CLAIMS = core<PersistentVolumeClaim>("persistentvolumeclaims", "PersistentVolumeClaim");
export const SECRETS = core<Secret>("secrets", "Secret");
export const CONFIG_MAPS = core<ConfigMap>("configmaps", "ConfigMap");
export const EVENTS = core<KubeEvent>("events", "Event");
export const SERVICE_ACCOUNTS = core<KubeObject>("serviceaccounts", "ServiceAccount");
export const NODES = core<Node>("nodes", "Node", false);
export const NAMESPACES = core<Namespace>("namespaces", "Namespace", false);

export const LEASES: Resource<Lease> = {
  group: "coordination.k8s.io",
  version: "v1",
  plural: "leases",
  kind: "Lease",
  namespaced: true,
};

export const DEPLOYMENTS: Resource<Deployment> = {
  group: "apps",
  version: "v1",
  plural: "deployments",
  kind: "Deployment",
  namespaced: true,
};

export const POD_DISRUPTION_BUDGETS: Resource<PodDisruptionBudget> = {
  group: "policy",
  version: "v1",
  plural: "poddisruptionbudgets",
  kind: "PodDisruptionBudget",
  namespaced: true,
};

export const NETWORK_POLICIES: Resource<NetworkPolicy> = {
  group: "networking.k8s.io",
  version: "v1",
  plural: "networkpolicies",
  kind: "NetworkPolicy",
  namespaced: true,
};

export const CRDS: Resource<KubeObject> = {
  group: "apiextensions.k8s.io",
  version: "v1",
  plural: "customresourcedefinitions",
  kind: "CustomResourceDefinition",
  namespaced: false,
};
