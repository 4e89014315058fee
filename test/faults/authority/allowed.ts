/**
 * Every right of the operator, with its reason. This table is written by hand, independently of the chart: anyone who
 * adds a right to the chart must also justify it here and in docs/security/permissions.md.
 */
export interface Allowed {
  readonly verbs: string;
  /** Such as `deployments.apps`; a core resource has no group. */
  readonly resource: string;
  readonly why: string;
}

/**
 * Kubernetes gives every authenticated user the rights to ask about their own rights (`system:basic-user`). Since 1.37,
 * it also gives every service account the right to read public certificates (`system:cluster-trust-bundle-discovery`).
 */
export const EVERYBODY: readonly Allowed[] = [
  { verbs: "create", resource: "selfsubjectaccessreviews.authorization.k8s.io", why: "checks its own rights" },
  { verbs: "create", resource: "selfsubjectrulesreviews.authorization.k8s.io", why: "lists its own rights" },
  { verbs: "create", resource: "selfsubjectreviews.authentication.k8s.io", why: "reads its own user name" },
  {
    verbs: "get list watch",
    resource: "clustertrustbundles.certificates.k8s.io",
    why: "not used: Kubernetes gives it to all service accounts",
  },
];

/** In the namespaces whose Environments are served. */
export const SERVED: readonly Allowed[] = [
  { verbs: "get list watch", resource: "environments.berth.dev", why: "the desired state" },
  { verbs: "patch", resource: "environments.berth.dev", why: "the finalizer, before the first claim" },
  { verbs: "patch", resource: "environments/status.berth.dev", why: "conditions and counts" },
  { verbs: "update", resource: "environments/finalizers.berth.dev", why: "owner references that block deletion" },
  { verbs: "get list watch", resource: "pods", why: "the state of sessions and workers" },
  { verbs: "create patch delete", resource: "pods", why: "session Pods: create, assign, end" },
  { verbs: "get", resource: "secrets", why: "the environment key, by name; a claim's record" },
  { verbs: "list", resource: "secrets", why: "claims of an earlier process, by label, at a start" },
  { verbs: "create patch delete", resource: "secrets", why: "records of claims" },
  { verbs: "list", resource: "events", why: "the reason why a Pod is not ready" },
  { verbs: "create patch", resource: "events", why: "reports what happened" },
  { verbs: "list watch create patch delete", resource: "deployments.apps", why: "always-on workers" },
  { verbs: "get create patch delete", resource: "poddisruptionbudgets.policy", why: "disruption: Protect" },
  {
    verbs: "get list watch create patch delete",
    resource: "networkpolicies.networking.k8s.io",
    why: "one for the Pods of each Environment",
  },
];

/** In the same namespaces, unless rbac.attach is false. */
export const ATTACH: readonly Allowed[] = [
  { verbs: "get create", resource: "pods/attach", why: "gives a session to a waiting shell or program" },
  { verbs: "get", resource: "pods/log", why: "whether a session started whose connection broke" },
];

/** In the same namespaces, unless rbac.ephemeralContainers or rbac.attach is false. */
export const TURNS: readonly Allowed[] = [
  { verbs: "patch", resource: "pods/ephemeralcontainers", why: "adds the turns of sessions that sleep" },
];

/** In the same namespaces, with features.volumes. */
export const WORKSPACES: readonly Allowed[] = [
  {
    verbs: "get list create patch delete",
    resource: "persistentvolumeclaims",
    why: "volumes of sessions under workspace: PerSession",
  },
];

/** In the release's own namespace. */
export const OWN: readonly Allowed[] = [
  { verbs: "get list create update delete", resource: "leases.coordination.k8s.io", why: "leader election" },
];

/** Cluster-scoped rights. */
export const NODES: readonly Allowed[] = [
  { verbs: "list watch", resource: "nodes", why: "no claim for Pods on nodes that are about to be removed" },
];

/** Rights of the Job that runs before an uninstall. */
export const UNINSTALL: readonly Allowed[] = [
  { verbs: "get list patch", resource: "environments.berth.dev", why: "removes the finalizer" },
];
export const UNINSTALL_DELETES: readonly Allowed[] = [
  { verbs: "delete", resource: "environments.berth.dev", why: "with crds.keep=false they are deleted with the CRD" },
  { verbs: "list delete", resource: "secrets", why: "claims of Environments that did not drain in time" },
];

/** The entries as texts, one per verb and resource, such as `get pods`. */
export function textsOf(...tables: readonly (readonly Allowed[])[]): Set<string> {
  return new Set(tables.flat().flatMap(({ verbs, resource }) => verbs.split(" ").map((verb) => `${verb} ${resource}`)));
}
