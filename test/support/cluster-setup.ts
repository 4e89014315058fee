/** Vitest's global setup: starts the control plane that the integration tests share. */
import type { TestProject } from "vitest/node";
import { findBinaries } from "../../testbed/cluster/build.ts";
import { startCluster } from "../../testbed/cluster/cluster.ts";
import { installBerth } from "../../testbed/cluster/install.ts";
import { showProgress } from "../../testbed/cluster/progress.ts";
import { NODE } from "../../testbed/cluster/users.ts";

/** What the integration tests know about the cluster that they share: paths of files, and the server's URL. */
export interface SharedCluster {
  readonly kubeconfig: string;
  readonly operatorKubeconfig: string;
  readonly nodeKubeconfig: string;
  readonly server: string;
  readonly caFile: string;
  readonly adminToken: string;
  readonly auditLog: string;
  /** The folder of the CA that signs client certificates. */
  readonly clientCaDir: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    cluster: SharedCluster;
  }
}

/**
 * Starts one control plane with the project's CRDs and the operator's permissions for all integration tests. Tests
 * access it by `useCluster`.
 */
export default function setup(project: TestProject): Promise<() => Promise<void>> {
  return setupCluster(project, process.env);
}

/** @param env selects the control plane */
export async function setupCluster(project: TestProject, env: NodeJS.ProcessEnv): Promise<() => Promise<void>> {
  const progress = showProgress();
  const { dir: binaries } = await findBinaries({ env, progress });
  const cluster = await startCluster({ binaries, progress });
  try {
    progress.clear();
    await installBerth(cluster.api);
    project.provide("cluster", {
      kubeconfig: cluster.kubeconfig,
      operatorKubeconfig: cluster.operatorKubeconfig,
      nodeKubeconfig: await cluster.kubeconfigFor(NODE),
      server: cluster.server,
      caFile: cluster.caFile,
      adminToken: cluster.adminToken,
      auditLog: cluster.audit.file,
      clientCaDir: cluster.clientCaDir,
    });
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  return () => cluster.stop();
}
