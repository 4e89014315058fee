import { randomBytes } from "node:crypto";
import { type Cluster, waitForServiceAccount } from "../../testbed/cluster/cluster.ts";
import { NODE } from "../../testbed/cluster/users.ts";
import type { TestCluster } from "../support/cluster.ts";

/** A separate cluster for one test or tool, in the shape of the shared test cluster. */
export async function asTestCluster(cluster: Cluster): Promise<TestCluster> {
  return {
    kubeconfig: cluster.kubeconfig,
    operatorKubeconfig: cluster.operatorKubeconfig,
    nodeKubeconfig: await cluster.kubeconfigFor(NODE),
    server: cluster.server,
    caFile: cluster.caFile,
    adminToken: cluster.adminToken,
    auditLog: cluster.audit.file,
    clientCaDir: cluster.clientCaDir,
    api: cluster.api,
    audit: cluster.audit,
    kubeconfigFor: (user, groups) => cluster.kubeconfigFor(user, groups),
    /** Uses the name without a random suffix, since the cluster is not shared. */
    async createNamespace(name) {
      await cluster.api.create("/api/v1/namespaces", { metadata: { name } });
      await waitForServiceAccount(cluster.api, name);
      return name;
    },
  };
}

/** The same for tests whose worlds have equal names: each namespace gets a random suffix. */
export async function asNamingCluster(cluster: Cluster): Promise<TestCluster> {
  const own = await asTestCluster(cluster);
  return { ...own, createNamespace: (name) => own.createNamespace(`${name}-${randomBytes(4).toString("hex")}`) };
}

const CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/environments.berth.dev";
const ANYTHING = { type: "object", "x-kubernetes-preserve-unknown-fields": true };

/** Installs a permissive CRD, as an older one may have been: it accepts any object. */
export async function takeAnything({ api }: Cluster): Promise<void> {
  const { spec } = await api.get<{ spec: { versions: Record<string, unknown>[] } }>(CRD);
  const versions = spec.versions.map((version) => ({ ...version, schema: { openAPIV3Schema: ANYTHING } }));
  await api.request("PATCH", CRD, { body: { spec: { versions } }, contentType: "application/merge-patch+json" });
}
