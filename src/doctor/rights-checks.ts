import { isRecord } from "../core/json.ts";
import { Slots } from "../core/slots.ts";
import type { KubeClient } from "../kube/client.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { look, unseen } from "./look.ts";
import { aboutOperator } from "./operator-checks.ts";
import {
  ATTACH_RIGHTS,
  LEASE_RIGHTS,
  NODE_RIGHTS,
  OPERATOR_RIGHTS,
  type Right,
  SLEEP_RIGHTS,
} from "./operator-rights.ts";
import type { InstalledOperator } from "./operators.ts";

const REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/** Some forty permissions per namespace. Thousands of concurrent reviews would only run into request timeouts. */
const AT_A_TIME = 16;
/** The number of permissions that a message lists. */
const SHOWN = 6;

const WITHOUT_SLEEP = "sessions cannot sleep there, so each work item gets a new Pod";

/** One permission to check. */
interface Permission {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  /** Undefined: all namespaces, or a cluster-scoped resource. */
  readonly namespace: string | undefined;
}

/** Whether the operator's service account has all the permissions it needs, according to the API server. */
export async function checkRights(kube: KubeClient, operator: InstalledOperator): Promise<CheckResult> {
  const results = resultsOf("operator-rights", aboutOperator(operator));
  const { namespaces = [], leases } = operator.settings ?? {};
  const served = namespaces.length > 0 ? namespaces : [undefined];
  const elected = leases?.elected ?? true;
  const needed = [
    ...served.flatMap((namespace) => permissionsOf(OPERATOR_RIGHTS, namespace)),
    ...(elected ? permissionsOf(LEASE_RIGHTS, leases?.namespace ?? operator.namespace) : []),
  ];
  const attaching = served.flatMap((namespace) => permissionsOf(ATTACH_RIGHTS, namespace));
  const adding = served.flatMap((namespace) => permissionsOf(SLEEP_RIGHTS, namespace));
  const found = await look(async () => {
    const [lacking, lackingAttach, lackingSleep, lackingNodes] = await Promise.all([
      refusedOf(kube, operator, needed),
      refusedOf(kube, operator, attaching),
      refusedOf(kube, operator, adding),
      refusedOf(kube, operator, permissionsOf(NODE_RIGHTS, undefined)),
    ]);
    return { lacking, lackingAttach, lackingSleep, lackingNodes };
  });
  if (found.is === "absent")
    return results.fail("the API server does not serve access reviews", "Ask the cluster's administrator.");
  if (found.is !== "seen") return unseen(results, found, "create subjectaccessreviews.authorization.k8s.io");
  const { lacking, lackingAttach, lackingSleep, lackingNodes } = found.value;
  const account = `service account ${operator.namespace}/${operator.serviceAccount}`;
  if (lacking.length > 0) {
    return results.fail(
      `${account} may not ${words(lacking)}`,
      "Apply the chart's roles again (helm upgrade with rbac.create, or kubectl apply --server-side -f deploy/rbac.yaml).",
    );
  }
  const optional = [
    { lacks: lackingAttach, effect: effectWithoutAttach(lackingAttach), value: "rbac.attach=true" },
    { lacks: lackingSleep, effect: WITHOUT_SLEEP, value: "rbac.ephemeralContainers=true" },
    {
      lacks: lackingNodes,
      effect: "Berth may claim Pods on nodes that are about to be removed",
      value: "features.nodes=true",
    },
  ].filter(({ lacks }) => lacks.length > 0);
  if (optional.length > 0) {
    return results.warn(
      `${account} ${optional.map(({ lacks, effect }) => `may not ${words(lacks)}: ${effect}`).join("; it also ")}`,
      `Set the chart's ${optional.map(({ value }) => value).join(" and ")}, unless this is intended.`,
    );
  }
  return results.pass(
    `${account} has the ${needed.length + attaching.length + adding.length} permissions of the chart`,
  );
}

function effectWithoutAttach(lacking: readonly Permission[]): string {
  return lacking.some(({ resource }) => resource === "pods/attach")
    ? "Pods cannot wait in a shell or in their program, so Environments that do not set parking use Key"
    : "after a lost connection, the operator cannot read whether a session has started";
}

function permissionsOf(rights: readonly Right[], namespace: string | undefined): Permission[] {
  return rights.flatMap(({ group, resource, verbs }) =>
    verbs.split(" ").map((verb) => ({ verb, group, resource, namespace })),
  );
}

async function refusedOf(
  kube: KubeClient,
  operator: InstalledOperator,
  all: readonly Permission[],
): Promise<Permission[]> {
  const reviews = new Slots(AT_A_TIME);
  const allowed = await Promise.all(all.map((permission) => reviews.run(() => isAllowed(kube, operator, permission))));
  return all.filter((_, at) => !allowed[at]);
}

async function isAllowed(
  kube: KubeClient,
  { namespace: home, serviceAccount }: InstalledOperator,
  { verb, group, resource: path, namespace }: Permission,
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
function words(lacking: readonly Permission[]): string {
  const shown = lacking.slice(0, SHOWN).map(({ verb, resource, group, namespace }) => {
    const what = group === "" ? resource : `${resource}.${group}`;
    return `${verb} ${what}${namespace === undefined ? "" : ` in namespace ${namespace}`}`;
  });
  const more = lacking.length > SHOWN ? [`and ${lacking.length - SHOWN} more`] : [];
  return [...shown, ...more].join(", ");
}
