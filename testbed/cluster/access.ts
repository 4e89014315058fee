import type { ApiClient } from "./api.ts";
import { NODE } from "./users.ts";

const READ = ["get", "list", "watch"] as const;
const WRITE = ["create", "update", "patch", "delete"] as const;

/** The permissions of a real kubelet, but for any number of nodes. */
const NODE_RULES = [
  { apiGroups: [""], resources: ["nodes", "pods"], verbs: [...READ, ...WRITE] },
  { apiGroups: [""], resources: ["nodes/status", "pods/status"], verbs: ["get", "update", "patch"] },
  { apiGroups: [""], resources: ["pods/eviction", "serviceaccounts/token"], verbs: ["create"] },
  { apiGroups: [""], resources: ["secrets", "configmaps", "serviceaccounts"], verbs: READ },
  { apiGroups: ["", "events.k8s.io"], resources: ["events"], verbs: ["create", "update", "patch"] },
  { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", ...WRITE] },
];

/** The API group of roles and bindings. */
export const RBAC = "rbac.authorization.k8s.io";

/**
 * Grants the simulated nodes their permissions. The operator's permissions are part of the product: see `installBerth`.
 */
export async function grantNodeAccess(api: ApiClient): Promise<void> {
  const group = `/apis/${RBAC}/v1`;
  const common = { apiVersion: `${RBAC}/v1`, metadata: { name: NODE } };
  await api.apply(`${group}/clusterroles/${NODE}`, { ...common, kind: "ClusterRole", rules: NODE_RULES });
  await api.apply(`${group}/clusterrolebindings/${NODE}`, {
    ...common,
    kind: "ClusterRoleBinding",
    roleRef: { apiGroup: RBAC, kind: "ClusterRole", name: NODE },
    subjects: [{ apiGroup: RBAC, kind: "User", name: NODE }],
  });
}
