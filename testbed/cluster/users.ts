import { randomBytes } from "node:crypto";

/** Somebody whom the API server knows by a token. */
export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  readonly token: string;
}

/** Full rights, whatever RBAC says. */
export const ADMIN = "berth-admin";
/** The operator under test: the service account of deploy/, with the rights that its chart gives to it and no other. */
export const OPERATOR = "system:serviceaccount:berth-system:berth-operator";
/** All simulated nodes; its rights are those of the ClusterRole of the same name. */
export const NODE = "berth-node";

/** Users of the parts of the control plane; the API server's own RBAC bootstrap gives them their rights. */
export const CONTROLLER_MANAGER = "system:kube-controller-manager";
export const SCHEDULER = "system:kube-scheduler";

const WELL_KNOWN: readonly { name: string; groups: readonly string[] }[] = [
  { name: ADMIN, groups: ["system:masters"] },
  { name: OPERATOR, groups: ["system:serviceaccounts", "system:serviceaccounts:berth-system"] },
  { name: NODE, groups: [] },
  { name: CONTROLLER_MANAGER, groups: [] },
  { name: SCHEDULER, groups: [] },
];

/** The users of a new cluster, each with a token of its own. */
export function makeUsers(more: readonly { name: string; groups?: readonly string[] }[] = []): Map<string, User> {
  const users = new Map<string, User>();
  for (const { name, groups = [] } of [...WELL_KNOWN, ...more]) {
    users.set(name, { name, groups, token: randomBytes(24).toString("base64url") });
  }
  return users;
}

/** The file for `--token-auth-file`: token, user, uid, "groups". */
export function tokenFile(users: Iterable<User>): string {
  return [...users]
    .map(({ name, groups, token }) => {
      const fields = [token, name, name];
      if (groups.length > 0) fields.push(`"${groups.join(",")}"`);
      return `${fields.join(",")}\n`;
    })
    .join("");
}
