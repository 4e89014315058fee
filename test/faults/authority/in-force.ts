import { setTimeout as pause } from "node:timers/promises";
import type { ApiClient } from "../../../testbed/cluster/api.ts";

/** One right that an RBAC rule grants, in the form of an access review. */
export interface Right {
  readonly verb: string;
  readonly group: string;
  /** With its subresource, as in `deployments/scale`. */
  readonly resource: string;
  /** Set if the right covers only this object. */
  readonly name?: string | undefined;
}

/** One rule of a role. */
export interface Rule {
  readonly verbs?: readonly string[];
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
}

/** The API server watches its own roles and bindings, so this takes a moment. A longer delay is a fault. */
const IN_FORCE_MS = 60_000;
const LOOK_AGAIN_MS = 20;

/** The first right that a rule grants. */
export function rightOf({ verbs = [], apiGroups = [], resources = [], resourceNames = [] }: Rule): Right {
  return { verb: verbs[0] ?? "", group: apiGroups[0] ?? "", resource: resources[0] ?? "", name: resourceNames[0] };
}

/**
 * Resolves when the API server enforces a binding that grants this right. The API server learns of roles and bindings
 * through watches, a moment after they are written. An empty `namespace` means all namespaces.
 */
export async function untilInForce(api: ApiClient, user: string, namespace: string, right: Right): Promise<void> {
  const { verb, group, name } = right;
  const [resource = "", subresource = ""] = right.resource.split("/");
  const resourceAttributes = { namespace, verb, group, resource, subresource, ...(name !== undefined && { name }) };
  const deadline = performance.now() + IN_FORCE_MS;
  for (;;) {
    const review = { spec: { user, resourceAttributes } };
    const path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    if ((await api.create<{ status: { allowed: boolean } }>(path, review)).status.allowed) return;
    if (performance.now() > deadline) throw new Error(`${user} may not ${JSON.stringify(resourceAttributes)}`);
    await pause(LOOK_AGAIN_MS);
  }
}
