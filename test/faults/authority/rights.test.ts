import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ApiClient, ApiError } from "../../../testbed/cluster/api.ts";
import type { Values } from "../../support/chart.ts";
import { useCluster } from "../../support/cluster.ts";
import {
  ATTACH,
  EVERYBODY,
  NODES,
  OWN,
  SERVED,
  TURNS,
  textsOf,
  UNINSTALL,
  UNINSTALL_DELETES,
  WORKSPACES,
} from "./allowed.ts";
import { allowedOf, allProbes, type Probe, probeText, rulesOf } from "./probes.ts";
import { applyRights, type ReleaseRights } from "./release-rights.ts";

const cluster = useCluster();
let served = "";
let foreign = "";
let probes: readonly Probe[] = [];
const count = { probed: 0, refused: 0, allowed: 0 };

beforeAll(async () => {
  served = await cluster.createNamespace("served");
  foreign = await cluster.createNamespace("foreign");
  probes = await allProbes(cluster.api);
});

afterAll(() => {
  console.log(`privileges probed: ${count.probed}, refused ${count.refused}, allowed ${count.allowed} as listed`);
});

/** Tries every verb on every resource, and compares the allowed ones with the table. */
async function expectOnly(client: ApiClient, namespace: string, expected: ReadonlySet<string>): Promise<void> {
  const allowed = await allowedOf(client, namespace, probes);
  count.probed += probes.length;
  count.allowed += allowed.size;
  count.refused += probes.length - allowed.size;
  expect([...allowed].sort()).toEqual([...expected].sort());
}

const union = (...sets: readonly ReadonlySet<string>[]): Set<string> => new Set(sets.flatMap((set) => [...set]));
const everybody = textsOf(EVERYBODY);

test("discovery lists the resources that matter", () => {
  const texts = new Set(probes.map(probeText));
  for (const text of ["create pods/exec", "patch pods/ephemeralcontainers", "create serviceaccounts/token"]) {
    expect(texts).toContain(text);
  }
  expect(texts).toContain("escalate clusterroles.rbac.authorization.k8s.io");
  expect(texts).toContain("patch environments/status.berth.dev");
  expect(probes.length).toBeGreaterThan(1_000);
});

describe("every verb on every resource: an operator that serves all namespaces", () => {
  let rights: ReleaseRights;
  let operator: ApiClient;
  beforeAll(async () => {
    rights = await applyRights(cluster);
    operator = await rights.as(rights.operator);
  });
  afterAll(() => rights[Symbol.asyncDispose]());

  test("has the listed rights in a foreign namespace", async () => {
    // Nodes are cluster-scoped, so the answer is the same for every namespace.
    await expectOnly(operator, foreign, textsOf(EVERYBODY, SERVED, ATTACH, TURNS, NODES));
  });

  test("has the listed rights in its own namespace", async () => {
    await expectOnly(operator, rights.namespace, textsOf(EVERYBODY, SERVED, ATTACH, TURNS, NODES, OWN));
  });

  test("has the listed cluster-scoped rights", async () => {
    await expectOnly(operator, "", textsOf(EVERYBODY, SERVED, ATTACH, TURNS, NODES));
  });
});

describe("every verb on every resource: an operator of named namespaces", () => {
  let rights: ReleaseRights;
  let operator: ApiClient;
  beforeAll(async () => {
    rights = await applyRights(cluster, { namespaces: [served], features: { nodes: false, aggregate: false } });
    operator = await rights.as(rights.operator);
  });
  afterAll(() => rights[Symbol.asyncDispose]());

  test("has the listed rights in a served namespace", async () => {
    await expectOnly(operator, served, textsOf(EVERYBODY, SERVED, ATTACH, TURNS));
  });

  test("has only leader election in its own namespace", async () => {
    await expectOnly(operator, rights.namespace, textsOf(EVERYBODY, OWN));
  });

  test("has no rights in any other namespace", async () => {
    await expectOnly(operator, foreign, everybody);
  });

  test("has no cluster-scoped rights", async () => {
    await expectOnly(operator, "", everybody);
  });
});

/**
 * Chart values. Each is checked for the operator and the uninstall Job in a served, the release's own, and a foreign
 * namespace.
 */
const VARIANTS: readonly {
  readonly name: string;
  readonly values: () => Values;
  readonly deletes?: boolean;
  readonly volumes?: boolean;
  readonly attaches?: boolean;
  readonly turns?: boolean;
}[] = [
  { name: "the defaults", values: () => ({}) },
  { name: "shards and replicas", values: () => ({ shards: 8, replicas: 3 }) },
  { name: "no right to read Nodes", values: () => ({ features: { nodes: false } }) },
  { name: "no right to attach", values: () => ({ rbac: { attach: false } }), attaches: false },
  { name: "no right to add turns", values: () => ({ rbac: { ephemeralContainers: false } }), turns: false },
  { name: "volumes of sessions", values: () => ({ features: { volumes: true } }), volumes: true },
  {
    name: "volumes of sessions in named namespaces",
    values: () => ({ namespaces: [served], features: { volumes: true } }),
    volumes: true,
  },
  { name: "metrics with a ServiceMonitor", values: () => ({ metrics: { serviceMonitor: { enabled: true } } }) },
  { name: "origins that are listed", values: () => ({ allowedApiOrigins: ["https://api.anthropic.com"] }) },
  { name: "a CRD that is deleted with the release", values: () => ({ crds: { keep: false } }), deletes: true },
  { name: "named namespaces", values: () => ({ namespaces: [served] }) },
  {
    name: "named namespaces, and a CRD that is deleted with the release",
    values: () => ({ namespaces: [served], crds: { keep: false } }),
    deletes: true,
  },
];

describe.each(VARIANTS)(
  "the rules of the API server with $name",
  ({ values, deletes = false, volumes = false, attaches = true, turns = attaches }) => {
    test("match the table, for the operator and for the uninstall", async () => {
      const given = values();
      await using rights = await applyRights(cluster, given);
      const all = !("namespaces" in given);
      const nodes =
        (given["features"] as { nodes?: boolean } | undefined)?.nodes === false ? new Set<string>() : textsOf(NODES);
      const inServed = textsOf(SERVED, attaches ? ATTACH : [], turns ? TURNS : [], volumes ? WORKSPACES : []);
      const operator = await rights.as(rights.operator);
      expect(await rulesOf(operator, served)).toEqual(union(everybody, nodes, inServed));
      expect(await rulesOf(operator, foreign)).toEqual(union(everybody, nodes, all ? inServed : new Set()));
      expect(await rulesOf(operator, rights.namespace)).toEqual(
        union(everybody, nodes, textsOf(OWN), all ? inServed : new Set()),
      );

      const uninstall = await rights.as(rights.uninstall);
      const environments = deletes ? textsOf(UNINSTALL, UNINSTALL_DELETES) : textsOf(UNINSTALL);
      expect(await rulesOf(uninstall, served)).toEqual(union(everybody, environments));
      expect(await rulesOf(uninstall, foreign)).toEqual(union(everybody, all ? environments : new Set()));
      const deployment = [`get deployments.apps ${rights.operator}`, `patch deployments/scale.apps ${rights.operator}`];
      expect(await rulesOf(uninstall, rights.namespace)).toEqual(
        union(everybody, all ? environments : new Set(), new Set([...deployment, "list pods"])),
      );
    });
  },
);

/**
 * Requests that no rule of the table covers and that the test really sends: method, path, and a body if one is needed.
 */
function dangerous(own: string, account: string): readonly (readonly [method: string, path: string, body?: unknown])[] {
  const rbac = "/apis/rbac.authorization.k8s.io/v1";
  const admin = { roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" } };
  const subjects = [{ kind: "ServiceAccount", name: account, namespace: own }];
  const everything = [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"] }];
  const patch = { metadata: { labels: { taken: "over" } } };
  const inNamespaces = [own, served, foreign, "kube-system"].flatMap((namespace) => {
    const core = `/api/v1/namespaces/${namespace}`;
    return [
      ["POST", `${core}/pods/p/exec?command=id`],
      ["GET", `${core}/pods/p/exec?command=id`],
      ["POST", `${core}/pods/p/portforward`],
      ["GET", `${core}/pods/p/proxy/`],
      ["PUT", `${core}/pods/p/ephemeralcontainers`, patch],
      ["PATCH", `${core}/pods/p/status`, patch],
      ["PATCH", `${core}/pods/p/resize`, patch],
      ["POST", `${core}/pods/p/eviction`, { metadata: { name: "p" } }],
      ["POST", `${core}/pods/p/binding`, { target: { name: "node" } }],
      ["PUT", `${core}/pods/p`, patch],
      ["DELETE", `${core}/pods`],
      ["POST", `${core}/serviceaccounts/default/token`, { spec: {} }],
      ["POST", `${core}/serviceaccounts`, { metadata: { name: "mine" } }],
      ["GET", `${core}/secrets?watch=true`],
      ["PUT", `${core}/secrets/s`, patch],
      ["DELETE", `${core}/secrets`],
      ["GET", `${core}/configmaps`],
      ["POST", `${core}/configmaps`, { metadata: { name: "c" } }],
      ["POST", `${core}/services`, { metadata: { name: "s" }, spec: { ports: [{ port: 1 }] } }],
      ["GET", `${core}/services/https:kubernetes:443/proxy/`],
      ["POST", `${rbac}/namespaces/${namespace}/rolebindings`, { metadata: { name: "b" }, ...admin, subjects }],
      ["POST", `${rbac}/namespaces/${namespace}/roles`, { metadata: { name: "r" }, rules: everything }],
      ["PATCH", `${rbac}/namespaces/${namespace}/roles/${account}-leader`, { rules: everything }],
      ["POST", `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments`, { metadata: { name: "e" }, spec: {} }],
      ["DELETE", `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments/e`],
      ["PUT", `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments/e/status`, patch],
      ["POST", `/apis/batch/v1/namespaces/${namespace}/jobs`, { metadata: { name: "j" } }],
      ["POST", `/apis/apps/v1/namespaces/${namespace}/daemonsets`, { metadata: { name: "d" } }],
      ["PATCH", `/apis/apps/v1/namespaces/${namespace}/deployments/d/scale`, { spec: { replicas: 0 } }],
      ["PATCH", `/apis/apps/v1/namespaces/${namespace}/statefulsets/s`, patch],
    ] as const;
  });
  const leases = [served, foreign, "kube-system", "kube-node-lease"].map(
    (namespace) => ["GET", `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`] as const,
  );
  return [
    ...inNamespaces,
    ...leases,
    ["POST", `${rbac}/clusterrolebindings`, { metadata: { name: "b" }, ...admin, subjects }],
    ["POST", `${rbac}/clusterroles`, { metadata: { name: "r" }, rules: everything }],
    ["PATCH", `${rbac}/clusterroles/${account}`, { rules: everything }],
    ["PATCH", `${rbac}/clusterroles/edit`, { rules: everything }],
    ["GET", "/api/v1/namespaces"],
    ["POST", "/api/v1/namespaces", { metadata: { name: "n" } }],
    [
      "PATCH",
      `/api/v1/namespaces/${served}`,
      { metadata: { labels: { "pod-security.kubernetes.io/enforce": "privileged" } } },
    ],
    ["PATCH", "/api/v1/nodes/n", { spec: { unschedulable: false } }],
    ["GET", "/api/v1/nodes/n/proxy/pods"],
    ["POST", "/api/v1/persistentvolumes", { metadata: { name: "v" } }],
    ["PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/environments.berth.dev", patch],
    ["POST", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", { metadata: { name: "w" } }],
    ["POST", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", { metadata: { name: "w" } }],
    ["DELETE", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/p"],
    ["POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", { metadata: { name: "c" } }],
    ["PATCH", "/apis/certificates.k8s.io/v1/certificatesigningrequests/c/approval", patch],
    ["POST", "/apis/authentication.k8s.io/v1/tokenreviews", { spec: { token: "t" } }],
    ["POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", { spec: { user: "u" } }],
    ["POST", "/apis/scheduling.k8s.io/v1/priorityclasses", { metadata: { name: "p" }, value: 1 }],
    ["GET", "/metrics"],
    ["GET", "/logs/"],
    ["GET", "/debug/pprof/"],
  ];
}

/** Whether the API server refused a request because the right is missing, and not because of its content. */
async function isForbidden(client: ApiClient, method: string, path: string, body?: unknown): Promise<boolean> {
  try {
    const contentType = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    await client.request(method, path, body === undefined ? {} : { body, contentType });
    return false;
  } catch (error) {
    if (error instanceof ApiError) return error.status === 403;
    throw error;
  }
}

describe("real requests", () => {
  test("are refused if they reach beyond the table", async () => {
    await using rights = await applyRights(cluster);
    const operator = await rights.as(rights.operator);
    const requests = dangerous(rights.namespace, rights.operator);
    const taken: string[] = [];
    for (const [method, path, body] of requests) {
      if (!(await isForbidden(operator, method, path, body))) taken.push(`${method} ${path}`);
    }
    expect(taken).toEqual([]);
    count.probed += requests.length;
    count.refused += requests.length;
  });

  test("are all refused in a foreign namespace for an operator of named namespaces", async () => {
    await using rights = await applyRights(cluster, { namespaces: [served] });
    const operator = await rights.as(rights.operator);
    const object = { metadata: { name: "o" } };
    const refused: boolean[] = [];
    for (const namespace of [foreign, rights.namespace, "kube-system"]) {
      for (const [path, name] of [
        [`/api/v1/namespaces/${namespace}/secrets`, "key"],
        [`/api/v1/namespaces/${namespace}/pods`, "p"],
        [`/api/v1/namespaces/${namespace}/events`, "e"],
        [`/apis/apps/v1/namespaces/${namespace}/deployments`, "d"],
        [`/apis/policy/v1/namespaces/${namespace}/poddisruptionbudgets`, "b"],
        [`/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`, "n"],
        [`/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments`, "e"],
      ] as const) {
        refused.push(await isForbidden(operator, "GET", path));
        refused.push(await isForbidden(operator, "POST", path, object));
        refused.push(await isForbidden(operator, "GET", `${path}/${name}`));
        refused.push(await isForbidden(operator, "PATCH", `${path}/${name}`, object));
        refused.push(await isForbidden(operator, "DELETE", `${path}/${name}`));
      }
      const pod = `/api/v1/namespaces/${namespace}/pods/p`;
      refused.push(await isForbidden(operator, "GET", `${pod}/attach`));
      refused.push(await isForbidden(operator, "POST", `${pod}/attach`));
      refused.push(await isForbidden(operator, "GET", `${pod}/log`));
      refused.push(await isForbidden(operator, "PATCH", `${pod}/ephemeralcontainers`, object));
    }
    for (const path of ["/api/v1/secrets", "/api/v1/pods", "/apis/berth.dev/v1alpha1/environments"]) {
      refused.push(await isForbidden(operator, "GET", path));
    }
    expect(refused.filter((each) => !each)).toEqual([]);
    count.probed += refused.length;
    count.refused += refused.length;
  });

  test("are allowed where the table says so, which shows that the refusals are due to missing rights", async () => {
    await using rights = await applyRights(cluster, { namespaces: [served] });
    const operator = await rights.as(rights.operator);
    await operator.get(`/api/v1/namespaces/${served}/secrets`);
    await operator.create(`/api/v1/namespaces/${served}/secrets`, { metadata: { name: "record" } });
    await operator.delete(`/api/v1/namespaces/${served}/secrets/record`);
    await operator.get(`/apis/coordination.k8s.io/v1/namespaces/${rights.namespace}/leases`);
  });

  test("are refused if they impersonate another user", async () => {
    await using rights = await applyRights(cluster);
    const operator = await rights.as(rights.operator);
    for (const headers of [
      { "impersonate-user": "berth-admin" },
      { "impersonate-user": "u", "impersonate-group": "system:masters" },
      { "impersonate-user": "system:serviceaccount:kube-system:default" },
      { "impersonate-user": "system:node:n" },
    ]) {
      await expect(operator.request("GET", "/api/v1/namespaces", { headers })).rejects.toMatchObject({ status: 403 });
      count.probed += 1;
      count.refused += 1;
    }
  });
});
