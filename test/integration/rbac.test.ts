import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import type { ApiObject } from "../../testbed/cluster/api.ts";
import { useCluster } from "../support/cluster.ts";

const FILES = ["namespace.yaml", "rbac.yaml"];
const PATHS: Record<string, string> = {
  Namespace: "/api/v1/namespaces",
  ServiceAccount: "/api/v1/namespaces/berth-system/serviceaccounts",
  ClusterRole: "/apis/rbac.authorization.k8s.io/v1/clusterroles",
  ClusterRoleBinding: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
  Role: "/apis/rbac.authorization.k8s.io/v1/namespaces/berth-system/roles",
  RoleBinding: "/apis/rbac.authorization.k8s.io/v1/namespaces/berth-system/rolebindings",
};
const OPERATOR = "system:serviceaccount:berth-system:berth-operator";
/** The API server applies new roles after a moment, and the controller-manager aggregates ClusterRoles. */
const PATIENCE_MS = 30_000;

const cluster = useCluster();

beforeAll(async () => {
  for (const file of FILES) {
    const text = await readFile(new URL(`../../deploy/${file}`, import.meta.url), "utf8");
    for (const document of parseAllDocuments(text)) {
      const object = document.toJS() as ApiObject;
      const path = PATHS[String(object.kind)];
      if (!path) throw new Error(`deploy/${file} holds a ${object.kind}, which this test cannot apply`);
      await cluster.api.apply(`${path}/${object.metadata?.name}`, object, "berth-deploy");
    }
  }
});

interface Right {
  readonly verb: string;
  readonly group?: string;
  readonly resource: string;
  readonly subresource?: string;
  readonly namespace?: string;
}

async function allowed(user: string, groups: readonly string[], right: Right): Promise<boolean> {
  const { status } = await cluster.api.create<{ status: { allowed: boolean } }>(
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    { spec: { user, groups, resourceAttributes: { namespace: "agents", ...right } } },
  );
  return status.allowed;
}

/**
 * Parses `patch berth.dev/environments/status`, or with a namespace `get coordination.k8s.io/leases in berth-system`.
 */
function right(text: string): Right {
  const [what = "", namespace = "agents"] = text.split(" in ");
  const [verb = "", path = ""] = what.split(" ");
  const hasGroup = path.includes(".") || /^(apps|policy)\//.test(path);
  const [group, resource, subresource] = hasGroup ? path.split("/") : ["", ...path.split("/")];
  return { verb, group: group ?? "", resource: resource ?? "", namespace, ...(subresource ? { subresource } : {}) };
}

describe("the operator's permissions", () => {
  test.each([
    "watch berth.dev/environments",
    "patch berth.dev/environments",
    "patch berth.dev/environments/status",
    "update berth.dev/environments/finalizers",
    "create pods",
    "patch pods",
    "delete pods",
    "get pods/attach",
    "create pods/attach",
    "get pods/log",
    "patch pods/ephemeralcontainers",
    "get secrets",
    "list secrets",
    "create secrets",
    "patch secrets",
    "delete secrets",
    "create events",
    "list events",
    "patch events",
    "create apps/deployments",
    "patch policy/poddisruptionbudgets",
    "delete coordination.k8s.io/leases in berth-system",
    "watch nodes",
    "update coordination.k8s.io/leases in berth-system",
  ])("allow it to %s", async (text) => {
    await expect.poll(() => allowed(OPERATOR, [], right(text)), { timeout: PATIENCE_MS }).toBe(true);
  });

  test.each([
    "watch secrets",
    "update secrets",
    "deletecollection secrets",
    "deletecollection pods",
    "update pods/ephemeralcontainers",
    "create pods/exec",
    "create pods/portforward",
    "create berth.dev/environments",
    "delete berth.dev/environments",
    "patch nodes",
    "update coordination.k8s.io/leases",
    "create serviceaccounts/token",
    "create persistentvolumeclaims",
    "get persistentvolumeclaims",
    "create rbac.authorization.k8s.io/rolebindings",
  ])("don't allow it to %s", async (text) => {
    expect(await allowed(OPERATOR, [], right(text))).toBe(false);
  });
});

describe("users' permissions", () => {
  test("let an editor create Environments and a viewer only read them, and neither write a status", async () => {
    const namespace = await cluster.createNamespace("rbac");
    for (const role of ["edit", "view"]) {
      await cluster.api.create(`/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/rolebindings`, {
        metadata: { name: role },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
        subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: `some-${role}or` }],
      });
    }
    const may = (role: string, text: string) => allowed(`some-${role}or`, [], { ...right(text), namespace });
    await expect.poll(() => may("edit", "create berth.dev/environments"), { timeout: PATIENCE_MS }).toBe(true);
    await expect.poll(() => may("view", "get berth.dev/environments"), { timeout: PATIENCE_MS }).toBe(true);
    expect(await may("view", "create berth.dev/environments")).toBe(false);
    expect(await may("edit", "patch berth.dev/environments/status")).toBe(false);
  });

  test("are none for an unknown user", async () => {
    expect(await allowed("stranger", [], right("get berth.dev/environments"))).toBe(false);
  });
});
