import type { ApiClient } from "../../../testbed/cluster/api.ts";

/** A verb on a resource, such as `get pods/exec` or `patch deployments.apps`. */
export interface Probe {
  readonly verb: string;
  /** Empty for the core group. */
  readonly group: string;
  readonly resource: string;
  readonly subresource: string;
}

/** All verbs of RBAC. Those from `use` on are not the verb of any request. */
const VERBS = [
  ...["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
  ...["use", "bind", "escalate", "impersonate", "approve", "sign", "attest", "request-serviceaccounts-token-audience"],
  "*",
];

/** Resources that RBAC can grant but discovery does not list. */
const VIRTUAL: readonly (readonly [group: string, resource: string])[] = [
  ["", "users"],
  ["", "groups"],
  ["", "userextras"],
  ["authentication.k8s.io", "uids"],
  ["authentication.k8s.io", "userextras"],
  ["certificates.k8s.io", "signers"],
  ["policy", "podsecuritypolicies"],
  // Admission of owner references with blockOwnerDeletion checks these.
  ["berth.dev", "environments/finalizers"],
  ["apps", "deployments/finalizers"],
  ["", "pods/finalizers"],
  ["*", "*"],
  ["", "*"],
];

interface ResourceList {
  readonly groupVersion: string;
  readonly resources: readonly { readonly name: string }[];
}

/** Every verb on every resource and subresource that the API server discovers, in all groups and versions. */
export async function allProbes(api: ApiClient): Promise<Probe[]> {
  const { groups } = await api.get<{ groups: { versions: { groupVersion: string }[] }[] }>("/apis");
  const paths = groups.flatMap(({ versions }) => versions.map(({ groupVersion }) => `/apis/${groupVersion}`));
  const lists = await Promise.all(["/api/v1", ...paths].map((path) => api.get<ResourceList>(path)));
  const names = lists.flatMap(({ groupVersion, resources }) => {
    const group = groupVersion.includes("/") ? (groupVersion.split("/")[0] ?? "") : "";
    return resources.map(({ name }) => [group, name] as const);
  });
  const distinct = new Map([...names, ...VIRTUAL].map((each) => [each.join("/"), each]));
  return [...distinct.values()].flatMap(([group, name]) => {
    const [resource = "", subresource = ""] = name.split("/");
    return VERBS.map((verb) => ({ verb, group, resource, subresource }));
  });
}

/** Such as `patch environments/status.berth.dev`. */
export function probeText({ verb, group, resource, subresource }: Probe): string {
  return `${verb} ${resource}${subresource && `/${subresource}`}${group && `.${group}`}`;
}

/** Access reviews in flight at a time. */
const CONCURRENCY = 24;

/** The probes that the API server allows this client. An empty `namespace` means cluster-scoped access. */
export async function allowedOf(client: ApiClient, namespace: string, probes: readonly Probe[]): Promise<Set<string>> {
  const allowed = new Set<string>();
  const rest = probes.values();
  const worker = async () => {
    for (const probe of rest) {
      const review = await client.create<{ status: { allowed: boolean } }>(
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        { spec: { resourceAttributes: { ...probe, namespace } } },
      );
      if (review.status.allowed) allowed.add(probeText(probe));
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return allowed;
}

interface ResourceRule {
  readonly verbs: readonly string[];
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
}

/**
 * The rules of the API server for this client in a namespace, such as `get deployments.apps`, with the names of objects
 * if a rule is limited to them.
 */
export async function rulesOf(client: ApiClient, namespace: string): Promise<Set<string>> {
  const { status } = await client.create<{ status: { resourceRules: ResourceRule[] } }>(
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    { spec: { namespace } },
  );
  return new Set(
    status.resourceRules.flatMap(({ verbs, apiGroups = [], resources = [], resourceNames = [] }) =>
      verbs.flatMap((verb) =>
        apiGroups.flatMap((group) =>
          resources.flatMap((resource) => {
            const text = `${verb} ${resource}${group && `.${group}`}`;
            return resourceNames.length === 0 ? [text] : resourceNames.map((name) => `${text} ${name}`);
          }),
        ),
      ),
    ),
  );
}
