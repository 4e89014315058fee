import type { ApiClient } from "./api.ts";
import { NODE, OPERATOR } from "./users.ts";

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

const READ = ["get", "list", "watch"] as const;
const WRITE = ["create", "update", "patch", "delete"] as const;

/** What the simulated nodes do with a real kubelet's rights, and for any number of nodes. */
const NODE_RULES: readonly Rule[] = [
  { apiGroups: [""], resources: ["nodes", "pods"], verbs: [...READ, ...WRITE] },
  { apiGroups: [""], resources: ["nodes/status", "pods/status"], verbs: ["get", "update", "patch"] },
  { apiGroups: [""], resources: ["pods/eviction", "serviceaccounts/token"], verbs: ["create"] },
  { apiGroups: [""], resources: ["secrets", "configmaps", "serviceaccounts"], verbs: READ },
  { apiGroups: ["", "events.k8s.io"], resources: ["events"], verbs: ["create", "update", "patch"] },
  { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", ...WRITE] },
];

/** What the operator needs, and nothing else: a verb that it uses and that is not here makes a test fail. */
const OPERATOR_RULES: readonly Rule[] = [
  { apiGroups: ["berth.dev"], resources: ["environments"], verbs: [...READ, "update", "patch"] },
  { apiGroups: ["berth.dev"], resources: ["environments/status"], verbs: ["get", "update", "patch"] },
  // Owner references that block the owner's deletion ask for this.
  { apiGroups: ["berth.dev"], resources: ["environments/finalizers"], verbs: ["update"] },
  { apiGroups: [""], resources: ["pods"], verbs: [...READ, ...WRITE] },
  // Never watched.
  { apiGroups: [""], resources: ["secrets"], verbs: ["get", "list", ...WRITE] },
  { apiGroups: ["", "events.k8s.io"], resources: ["events"], verbs: ["create", "update", "patch"] },
  { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: [...READ, ...WRITE] },
];

const RBAC = "rbac.authorization.k8s.io";

/** Gives the simulated nodes and the operator their rights, in all namespaces. */
export async function grantAccess(api: ApiClient): Promise<void> {
  await Promise.all([grant(api, NODE, NODE_RULES), grant(api, OPERATOR, OPERATOR_RULES)]);
}

async function grant(api: ApiClient, user: string, rules: readonly Rule[]): Promise<void> {
  const group = `/apis/${RBAC}/v1`;
  const common = { apiVersion: `${RBAC}/v1`, metadata: { name: user } };
  await api.apply(`${group}/clusterroles/${user}`, { ...common, kind: "ClusterRole", rules });
  await api.apply(`${group}/clusterrolebindings/${user}`, {
    ...common,
    kind: "ClusterRoleBinding",
    roleRef: { apiGroup: RBAC, kind: "ClusterRole", name: user },
    subjects: [{ apiGroup: RBAC, kind: "User", name: user }],
  });
}
