import { join } from "node:path";
import { cacheRoot } from "../cluster/cache.ts";
import { copyFromModule } from "../cluster/module-files.ts";

/** kube-prometheus (Apache-2.0), which is also a Go module. */
const MODULE = {
  path: "github.com/prometheus-operator/kube-prometheus",
  version: "v0.18.0",
  sum: "h1:NHWLvZ1soAeLRC5BICwlga2p2Y33ICK4FXc4nxQ65T0=",
};
/** Its rules about Pods, among others. */
const FILE = join("manifests", "kubernetesControlPlane-prometheusRule.yaml");

/**
 * Returns the path of kube-prometheus' PrometheusRule with a cluster's usual alerts. It is downloaded once (1 MB).
 * @throws MissingToolError if it isn't available
 */
export async function findClusterRules(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const file = join(cacheRoot(env), "kube-prometheus", `${MODULE.version}.yaml`);
  await copyFromModule(MODULE, FILE, file, env);
  return file;
}
