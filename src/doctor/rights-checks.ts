import { isRecord } from "../core/json.ts";
import { Slots } from "../core/slots.ts";
import type { KubeClient } from "../kube/client.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { look, unseen } from "./look.ts";
import { aboutOperator } from "./operator-checks.ts";
import type { InstalledOperator } from "./operators.ts";

const REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/** Some forty rights in each namespace: thousands of reviews at once would only meet the time-out of requests. */
const AT_A_TIME = 16;
/** A message names so many rights. */
const SHOWN = 6;

/** One thing that somebody wants to do. */
interface Wish {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  /** Undefined: in all namespaces, or of no namespace. */
  readonly namespace: string | undefined;
}

/** Whether the operator's service account may do all that it is made for, by the API server's own word. */
export async function checkRights(kube: KubeClient, operator: InstalledOperator): Promise<CheckResult> {
  const results = resultsOf("operator-rights", aboutOperator(operator));
  const { namespaces = [], leases } = operator.settings ?? {};
  const served = namespaces.length > 0 ? namespaces : [undefined];
  const elected = leases?.elected ?? true;
  const needed = [
    ...served.flatMap((namespace) => wishes(OPERATOR_RIGHTS, namespace)),
    ...(elected ? wishes(LEASE_RIGHTS, leases?.namespace ?? operator.namespace) : []),
  ];
  const found = await look(async () => {
    const [lacking, unknowing] = await Promise.all([
      refusedOf(kube, operator, needed),
      refusedOf(kube, operator, wishes(NODE_RIGHTS, undefined)),
    ]);
    return { lacking, unknowing };
  });
  if (found.is === "absent")
    return results.fail("the API server reviews no access", "Ask the cluster's administrator.");
  if (found.is !== "seen") return unseen(results, found, "create subjectaccessreviews.authorization.k8s.io");
  const { lacking, unknowing } = found.value;
  const account = `${operator.namespace}/${operator.serviceAccount}`;
  if (lacking.length > 0) {
    return results.fail(
      `service account ${account} may not ${words(lacking)}`,
      "Apply the chart's roles again (helm upgrade with rbac.create, or kubectl apply --server-side -f deploy/rbac.yaml).",
    );
  }
  if (unknowing.length > 0) {
    return results.warn(
      `service account ${account} may not ${words(unknowing)}: Pods on nodes that are about to go may be claimed`,
      "Set the chart's rbac.nodes, unless it is off on purpose.",
    );
  }
  return results.pass(`service account ${account} has the ${needed.length} rights of the chart`);
}

function wishes(rights: readonly Right[], namespace: string | undefined): Wish[] {
  return rights.flatMap(({ group, resource, verbs }) =>
    verbs.split(" ").map((verb) => ({ verb, group, resource, namespace })),
  );
}

async function refusedOf(kube: KubeClient, operator: InstalledOperator, all: readonly Wish[]): Promise<Wish[]> {
  const reviews = new Slots(AT_A_TIME);
  const allowed = await Promise.all(all.map((wish) => reviews.run(() => isAllowed(kube, operator, wish))));
  return all.filter((_, at) => !allowed[at]);
}

async function isAllowed(
  kube: KubeClient,
  { namespace: home, serviceAccount }: InstalledOperator,
  { verb, group, resource: path, namespace }: Wish,
): Promise<boolean> {
  const [resource, subresource] = path.split("/");
  const review = {
    apiVersion: "authorization.k8s.io/v1",
    kind: "SubjectAccessReview",
    spec: {
      user: `system:serviceaccount:${home}:${serviceAccount}`,
      groups: ["system:serviceaccounts", `system:serviceaccounts:${home}`, "system:authenticated"],
      resourceAttributes: { verb, group, resource, subresource, namespace },
    },
  };
  const answer = await kube.raw("POST", REVIEWS, review);
  return isRecord(answer) && isRecord(answer["status"]) && answer["status"]["allowed"] === true;
}

/** `list secrets in namespace agents, patch pods, and 3 more`. */
function words(lacking: readonly Wish[]): string {
  const shown = lacking.slice(0, SHOWN).map(({ verb, resource, group, namespace }) => {
    const what = group === "" ? resource : `${resource}.${group}`;
    return `${verb} ${what}${namespace === undefined ? "" : ` in namespace ${namespace}`}`;
  });
  const more = lacking.length > SHOWN ? [`and ${lacking.length - SHOWN} more`] : [];
  return [...shown, ...more].join(", ");
}

/** What somebody may do with a kind of objects. */
export interface Right {
  /** Empty for the core group. */
  readonly group: string;
  /** With its subresource: `environments/status`. */
  readonly resource: string;
  /** Separated by blanks. */
  readonly verbs: string;
}

/** Wherever it serves Environments. */
export const OPERATOR_RIGHTS: readonly Right[] = [
  { group: "berth.dev", resource: "environments", verbs: "get list watch patch" },
  { group: "berth.dev", resource: "environments/status", verbs: "patch" },
  { group: "berth.dev", resource: "environments/finalizers", verbs: "update" },
  { group: "", resource: "pods", verbs: "get list watch create patch delete" },
  { group: "", resource: "secrets", verbs: "get list create patch delete" },
  { group: "", resource: "events", verbs: "list create patch" },
  { group: "apps", resource: "deployments", verbs: "list watch create patch delete" },
  { group: "policy", resource: "poddisruptionbudgets", verbs: "get create patch delete" },
  { group: "networking.k8s.io", resource: "networkpolicies", verbs: "get list watch create patch delete" },
];

/** Where its Leases are. */
export const LEASE_RIGHTS: readonly Right[] = [
  { group: "coordination.k8s.io", resource: "leases", verbs: "get list create update delete" },
];

/** In the cluster; without them it works, and claims on nodes that are about to go. */
export const NODE_RIGHTS: readonly Right[] = [{ group: "", resource: "nodes", verbs: "list watch" }];
