/** Access to the shared control plane: namespaces, kubeconfigs and a client. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, inject } from "vitest";
import { API_VERSION, PLURAL } from "../../src/api/names.ts";
import { ApiClient, ApiError } from "../../testbed/cluster/api.ts";
import { AuditLog } from "../../testbed/cluster/audit.ts";
import { ClientCa } from "../../testbed/cluster/client-ca.ts";
import { waitForServiceAccount } from "../../testbed/cluster/cluster.ts";
import { writeCertificateKubeconfig } from "../../testbed/cluster/kubeconfig.ts";
import type { SharedCluster } from "./cluster-setup.ts";

/** The cluster that all integration tests share. Each test uses its own namespaces. */
export interface TestCluster extends SharedCluster {
  /** A client with all permissions. */
  readonly api: ApiClient;
  readonly audit: AuditLog;
  /** Creates a namespace that accepts Pods, and deletes it after this file's tests. */
  createNamespace(prefix: string): Promise<string>;
  /** The path of a kubeconfig for any user. The user has only the permissions that a test grants by RBAC. */
  kubeconfigFor(user: string, groups?: readonly string[]): Promise<string>;
}

/**
 * The shared cluster. Call it at the top of a test file or a describe block, because it registers the cleanup. A test
 * that must break its API server starts its own cluster (`startCluster`, three seconds).
 */
export function useCluster(): TestCluster {
  const shared = inject("cluster");
  const ca = readFileSync(shared.caFile, "utf8");
  const api = new ApiClient(shared.server, ca, shared.adminToken);
  const audit = new AuditLog(shared.auditLog, (path) => api.get(path));
  const namespaces: string[] = [];
  afterAll(async () => {
    await Promise.all(namespaces.map((name) => deleteNamespace(api, name)));
    await api.close();
  });
  return {
    ...shared,
    api,
    audit,
    async createNamespace(prefix) {
      const name = `${prefix}-${randomBytes(4).toString("hex")}`;
      await api.create("/api/v1/namespaces", { metadata: { name } });
      namespaces.push(name);
      await waitForServiceAccount(api, name);
      return name;
    },
    async kubeconfigFor(user, groups = []) {
      const authority = await ClientCa.load(shared.clientCaDir);
      return await writeCertificateKubeconfig(
        shared.clientCaDir,
        shared.server,
        ca,
        user,
        authority.issue(user, groups),
      );
    },
  };
}

/** Starts the deletion without waiting: the whole cluster is deleted soon. */
async function deleteNamespace(api: ApiClient, name: string): Promise<void> {
  await releaseEnvironments(api, name);
  try {
    await api.delete(`/api/v1/namespaces/${name}`);
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  }
}

/**
 * Removes the finalizers as far as the API server permits, because nothing drains after the tests. Otherwise the
 * Environments would block their namespace as long as the cluster lives. The namespace controller lists each kind again
 * and again in each such namespace: a hundred of them cost 500 requests a second.
 */
async function releaseEnvironments(api: ApiClient, namespace: string): Promise<void> {
  const path = `/apis/${API_VERSION}/namespaces/${namespace}/${PLURAL}`;
  const body = { metadata: { finalizers: null } };
  const contentType = "application/merge-patch+json";
  try {
    const { items } = await api.get<{ items: readonly { readonly metadata: { readonly name: string } }[] }>(path);
    const release = (name: string) => api.request("PATCH", `${path}/${name}`, { body, contentType });
    await Promise.all(items.map(({ metadata }) => release(metadata.name)));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
}
