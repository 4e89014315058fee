import { setTimeout as pause } from "node:timers/promises";
import type { ApiClient } from "../../../testbed/cluster/api.ts";

/** One thing that a rule of RBAC gives, as the API server is asked about it. */
export interface Right {
  readonly verb: string;
  readonly group: string;
  /** With its subresource, as in `deployments/scale`. */
  readonly resource: string;
  /** Of one object alone. */
  readonly name?: string | undefined;
}

/** A rule of a role. */
export interface Rule {
  readonly verbs?: readonly string[];
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
}

/** A moment at most: the API server watches its own roles and bindings. More is a fault. */
const IN_FORCE_MS = 60_000;
const LOOK_AGAIN_MS = 20;

/** The first thing that a rule gives. */
export function rightOf({ verbs = [], apiGroups = [], resources = [], resourceNames = [] }: Rule): Right {
  return { verb: verbs[0] ?? "", group: apiGroups[0] ?? "", resource: resources[0] ?? "", name: resourceNames[0] };
}

/**
 * Resolves when the API server acts on a binding that gives somebody this right: it learns of roles and bindings by
 * watches, a moment after they were written. `namespace`: empty for all of them.
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
