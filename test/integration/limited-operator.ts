import type { Resource } from "../../src/kube/resource.ts";
import { type Rule, shippedRules } from "../support/shipped-rights.ts";
import type { World } from "../support/world.ts";

const ROLES: Resource = {
  group: "rbac.authorization.k8s.io",
  version: "v1",
  plural: "roles",
  kind: "Role",
  namespaced: true,
};
const BINDINGS: Resource = { ...ROLES, plural: "rolebindings", kind: "RoleBinding" };

/** The operator's permissions where it serves Environments, as shipped. */
const SHIPPED = await shippedRules("berth-operator");

/** A permission that an operator lacks. */
export interface Lack {
  readonly resource: string;
  readonly verb: string;
}

/** The user of an operator with limited permissions. */
export const limitedUser = (world: World) => `operator-${world.namespace}`;

/** Grants that user the operator's permissions in the world's namespace, except `lack`. */
export async function limitOperator(world: World, lack?: Lack): Promise<void> {
  const metadata = { name: "limited", namespace: world.namespace };
  await world.kube.create(ROLES, { metadata, rules: rules(lack) } as never);
  const subjects = [{ kind: "User", name: limitedUser(world), apiGroup: ROLES.group }];
  const roleRef = { kind: "Role", name: "limited", apiGroup: ROLES.group };
  await world.kube.create(BINDINGS, { metadata, subjects, roleRef } as never);
}

/** Grants all permissions again. */
export async function unlimitOperator(world: World): Promise<void> {
  await changeRights(world);
}

/** Grants all permissions except `lack`. */
export async function changeRights(world: World, lack?: Lack): Promise<void> {
  const ref = { name: "limited", namespace: world.namespace };
  await world.kube.patch(ROLES, ref, { rules: rules(lack) }, { type: "merge" });
}

function rules(lack?: Lack): Rule[] {
  if (lack && !SHIPPED.some(({ resources, verbs }) => resources.includes(lack.resource) && verbs.includes(lack.verb))) {
    throw new Error(`the operator may not ${lack.verb} ${lack.resource} anyway`);
  }
  return SHIPPED.map((rule) => ({
    ...rule,
    verbs: rule.verbs.filter((verb) => !rule.resources.includes(lack?.resource ?? "") || verb !== lack?.verb),
  }));
}
