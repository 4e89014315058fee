import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { RBAC } from "./access.ts";
import { type ApiClient, ApiError, type ApiObject } from "./api.ts";
import { readManifests } from "./manifests.ts";

/** The manifests that users install. */
export const DEPLOY_DIR = join(import.meta.dirname, "..", "..", "deploy");

/** A CRD is usually established within a second, so a longer wait is a fault. */
const ESTABLISHED_TIMEOUT_MS = 30_000;
const POLL_MS = 20;
const CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/** What to install in addition to CRDs: the operator's permissions, but not the operator, which runs outside the cluster. */
const KIND_PATHS: Readonly<Record<string, (namespace: string) => string>> = {
  Namespace: () => "/api/v1/namespaces",
  ServiceAccount: (namespace) => `/api/v1/namespaces/${namespace}/serviceaccounts`,
  ClusterRole: () => `/apis/${RBAC}/v1/clusterroles`,
  ClusterRoleBinding: () => `/apis/${RBAC}/v1/clusterrolebindings`,
  Role: (namespace) => `/apis/${RBAC}/v1/namespaces/${namespace}/roles`,
  RoleBinding: (namespace) => `/apis/${RBAC}/v1/namespaces/${namespace}/rolebindings`,
};

/**
 * Prepares a cluster for an operator that runs outside it with the shipped service account (`operatorKubeconfig`).
 * Installs the CRDs and the shipped permissions.
 */
export async function installBerth(api: ApiClient, dir: string = DEPLOY_DIR): Promise<void> {
  await installCrds(api, join(dir, "crds"));
  for (const object of await readManifests(dir)) {
    const path = KIND_PATHS[object.kind ?? ""]?.(object.metadata?.namespace ?? "default");
    if (!path) continue;
    await api.apply(`${path}/${object.metadata?.name}`, object);
  }
}

/** Applies every CRD in a folder and waits until objects of its kind can be listed. Returns the names of the CRDs. */
export async function installCrds(api: ApiClient, dir: string = join(DEPLOY_DIR, "crds")): Promise<string[]> {
  const names: string[] = [];
  for (const crd of await readManifests(dir)) {
    const name = crd.metadata?.name;
    if (crd.kind !== "CustomResourceDefinition" || !name) throw new Error(`${dir} contains objects other than CRDs`);
    await api.apply(`${CRD_PATH}/${name}`, crd);
    await waitUntilServed(api, name);
    names.push(name);
  }
  return names;
}

interface Crd extends ApiObject {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly plural: string };
    readonly versions: readonly { readonly name: string }[];
  };
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** The Established condition is set shortly before the API server serves the kind, so only a list proves it. */
async function waitUntilServed(api: ApiClient, name: string): Promise<void> {
  const deadline = performance.now() + ESTABLISHED_TIMEOUT_MS;
  for (;;) {
    const crd = await api.get<Crd>(`${CRD_PATH}/${name}`);
    const conditions = crd.status?.conditions ?? [];
    if (conditions.some(({ type, status }) => type === "Established" && status === "True")) {
      const { group, names, versions } = crd.spec;
      if (await answers(api, `/apis/${group}/${versions[0]?.name}/${names.plural}`)) return;
    }
    if (performance.now() > deadline) throw new Error(`${name} is not established: ${JSON.stringify(conditions)}`);
    await delay(POLL_MS);
  }
}

async function answers(api: ApiClient, path: string): Promise<boolean> {
  try {
    await api.get(path);
    return true;
  } catch (error) {
    // 404: not in the API yet. 429: the API server is filling its watch cache ("storage is (re)initializing").
    if (error instanceof ApiError && (error.status === 404 || error.status === 429)) return false;
    throw error;
  }
}
