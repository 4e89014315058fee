import type { ApiClient } from "./api.ts";
import { NODE } from "./users.ts";

/** What the simulated nodes do with a real kubelet's rights, and for any number of nodes. */
const NODE_RULES = [
  { apiGroups: [""], resources: ["nodes"], verbs: ["get", "list", "watch", "create", "update", "patch", "delete"] },
  { apiGroups: [""], resources: ["nodes/status"], verbs: ["get", "update", "patch"] },
  { apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch", "create", "update", "patch", "delete"] },
  { apiGroups: [""], resources: ["pods/status"], verbs: ["get", "update", "patch"] },
  { apiGroups: [""], resources: ["pods/eviction"], verbs: ["create"] },
  { apiGroups: [""], resources: ["secrets", "configmaps", "serviceaccounts"], verbs: ["get", "list", "watch"] },
  { apiGroups: [""], resources: ["serviceaccounts/token"], verbs: ["create"] },
  { apiGroups: ["", "events.k8s.io"], resources: ["events"], verbs: ["create", "update", "patch"] },
  { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "create", "update", "patch", "delete"] },
];

/** Gives the simulated nodes their rights. The operator's are part of the product, and come with its manifests. */
export async function grantNodeAccess(api: ApiClient): Promise<void> {
  const group = "/apis/rbac.authorization.k8s.io/v1";
  const metadata = { name: NODE };
  const apiVersion = "rbac.authorization.k8s.io/v1";
  await api.apply(`${group}/clusterroles/${NODE}`, { apiVersion, kind: "ClusterRole", metadata, rules: NODE_RULES });
  await api.apply(`${group}/clusterrolebindings/${NODE}`, {
    apiVersion,
    kind: "ClusterRoleBinding",
    metadata,
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: NODE },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: NODE }],
  });
}
