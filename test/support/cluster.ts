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

/** The cluster that all integration tests share. Tests keep apart by namespaces. */
export interface TestCluster extends SharedCluster {
  /** All rights. */
  readonly api: ApiClient;
  readonly audit: AuditLog;
  /** A namespace of its own, ready to take Pods, deleted after the tests of this file. */
  createNamespace(prefix: string): Promise<string>;
  /** Path of a kubeconfig for any user, who has no rights but those that a test gives by RBAC. */
  kubeconfigFor(user: string, groups?: readonly string[]): Promise<string>;
}

/**
 * The shared cluster. Call it at the top of a test file or a describe block: it registers the clean-up.
 * A test that must break its API server starts a cluster of its own (`startCluster`; three seconds).
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

/** Begins the deletion; the whole cluster goes soon. */
async function deleteNamespace(api: ApiClient, name: string): Promise<void> {
  await releaseEnvironments(api, name);
  try {
    await api.delete(`/api/v1/namespaces/${name}`);
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  }
}

/**
 * Takes the finalizers off, as far as the API server allows it: the tests are over, and nobody drains. Environments would
 * hold their namespace for as long as the cluster lives, and the namespace controller asks again and again for each kind of
 * object in each of those: a hundred of them cost 500 requests a second.
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
