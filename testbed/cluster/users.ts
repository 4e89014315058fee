import { randomBytes } from "node:crypto";

/** A user whom the API server knows by a token. */
export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  readonly token: string;
}

/** A user with all permissions, independent of RBAC. */
export const ADMIN = "berth-admin";
/** The operator under test: the service account of deploy/, with only the permissions that its chart grants. */
export const OPERATOR = "system:serviceaccount:berth-system:berth-operator";
/** The user of all simulated nodes. The ClusterRole of the same name grants its permissions. */
export const NODE = "berth-node";

/** The user as which the API server sends requests to kubelets, in every cluster that kubeadm made, too. */
export const KUBELET_CLIENT = "kube-apiserver-kubelet-client";

/** Users of the control plane's components. The API server's RBAC bootstrap grants their permissions. */
export const CONTROLLER_MANAGER = "system:kube-controller-manager";
export const SCHEDULER = "system:kube-scheduler";

const WELL_KNOWN: readonly { name: string; groups: readonly string[] }[] = [
  { name: ADMIN, groups: ["system:masters"] },
  { name: OPERATOR, groups: ["system:serviceaccounts", "system:serviceaccounts:berth-system"] },
  { name: NODE, groups: [] },
  { name: CONTROLLER_MANAGER, groups: [] },
  { name: SCHEDULER, groups: [] },
];

/** Creates the users of a new cluster, each with its own token. */
export function makeUsers(more: readonly { name: string; groups?: readonly string[] }[] = []): Map<string, User> {
  const users = new Map<string, User>();
  for (const { name, groups = [] } of [...WELL_KNOWN, ...more]) {
    users.set(name, { name, groups, token: randomBytes(24).toString("base64url") });
  }
  return users;
}

/** Renders the file for `--token-auth-file`: token, user, uid, "groups". */
export function tokenFile(users: Iterable<User>): string {
  return [...users]
    .map(({ name, groups, token }) => {
      const fields = [token, name, name];
      if (groups.length > 0) fields.push(`"${groups.join(",")}"`);
      return `${fields.join(",")}\n`;
    })
    .join("");
}
