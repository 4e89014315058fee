import type { Resource } from "../../src/kube/resource.ts";
import type { World } from "../support/world.ts";

const ROLES: Resource = {
  group: "rbac.authorization.k8s.io",
  version: "v1",
  plural: "roles",
  kind: "Role",
  namespaced: true,
};
const BINDINGS: Resource = { ...ROLES, plural: "rolebindings", kind: "RoleBinding" };

/** The rights that the operator has in deploy/rbac.yaml, by resource. */
const RIGHTS: Readonly<Record<string, { readonly group: string; readonly verbs: readonly string[] }>> = {
  environments: { group: "berth.dev", verbs: ["get", "list", "watch", "patch"] },
  "environments/status": { group: "berth.dev", verbs: ["patch"] },
  pods: { group: "", verbs: ["get", "list", "watch", "create", "patch", "delete"] },
  secrets: { group: "", verbs: ["get", "list", "create", "patch", "delete"] },
  events: { group: "", verbs: ["create", "patch"] },
  deployments: { group: "apps", verbs: ["get", "list", "watch", "create", "patch", "delete"] },
  poddisruptionbudgets: {
    group: "policy",
    verbs: ["get", "list", "watch", "create", "patch", "update", "delete"],
  },
};

/** A right that an operator lacks. */
export interface Lack {
  readonly resource: string;
  readonly verb: string;
}

/** The user that an operator with fewer rights than it needs runs as. */
export const limitedUser = (world: World) => `operator-${world.namespace}`;

/** Gives that user what the operator needs in the world's namespace, but for one right if that is named. */
export async function limitOperator(world: World, lack?: Lack): Promise<void> {
  const metadata = { name: "limited", namespace: world.namespace };
  await world.kube.create(ROLES, { metadata, rules: rules(lack) } as never);
  const subjects = [{ kind: "User", name: limitedUser(world), apiGroup: ROLES.group }];
  const roleRef = { kind: "Role", name: "limited", apiGroup: ROLES.group };
  await world.kube.create(BINDINGS, { metadata, subjects, roleRef } as never);
}

/** Gives it the rest. */
export async function unlimitOperator(world: World): Promise<void> {
  await changeRights(world);
}

/** All rights again, but for this one. */
export async function changeRights(world: World, lack?: Lack): Promise<void> {
  const ref = { name: "limited", namespace: world.namespace };
  await world.kube.patch(ROLES, ref, { rules: rules(lack) }, { type: "merge" });
}

function rules(lack?: Lack) {
  return Object.entries(RIGHTS).map(([resource, { group, verbs }]) => ({
    apiGroups: [group],
    resources: [resource],
    verbs: verbs.filter((verb) => resource !== lack?.resource || verb !== lack.verb),
  }));
}
