import { join } from "node:path";
import type { KubeClient } from "../../../src/kube/client.ts";
import { CONFIG_MAPS } from "../../../src/kube/resource.ts";
import { CHART } from "../../../tools/helm.ts";
import { helmWithValues, RELEASE, type Values } from "../../support/chart.ts";
import { type E2eCluster, OPERATOR_NAMESPACE, OPERATOR_REPLICAS, type SimulatorPlace } from "./provided.ts";
import { makeNamespace } from "./simulator-pod.ts";

/** Longer than any step takes, so that helm reports what hangs. */
const HELM_TIMEOUT = "180s";

/** A ConfigMap in the operator's namespace, with the certificate authority of the simulator. */
export const SIMULATOR_CA = "simulator-ca";

type Installed = Pick<E2eCluster, "kubeconfig" | "dir" | "images"> & {
  readonly simulator: Pick<SimulatorPlace, "url" | "tls">;
};

/** The chart's defaults, except for the image, a second replica, and the addresses of the simulator. */
export function chartValues({ images, simulator }: Installed): Values {
  const [, repository = "", tag = ""] = /^(.*):([^:/]+)$/.exec(images.operator) ?? [];
  return {
    replicas: OPERATOR_REPLICAS,
    image: { repository, tag },
    allowedApiOrigins: [simulator.url, simulator.tls.url],
    caBundle: { configMap: SIMULATOR_CA },
    // Debug lines would show any leak.
    logLevel: "debug",
  };
}

/** Installs Berth with helm, and waits until all replicas are available. @throws {Error} with helm's output */
export async function installBerthChart(kube: KubeClient, cluster: Installed, over: Values = {}): Promise<void> {
  await makeNamespace(kube, OPERATOR_NAMESPACE, { "pod-security.kubernetes.io/enforce": "restricted" });
  await kube.create(CONFIG_MAPS, {
    metadata: { name: SIMULATOR_CA, namespace: OPERATOR_NAMESPACE },
    data: { "ca.crt": cluster.simulator.tls.certificate },
  });
  await helmOnCluster(cluster, "install", over);
}

/**
 * `helm upgrade --install`: like `installBerthChart`, whether the release exists or not.
 * @throws {Error} with helm's output
 */
export async function reinstallBerthChart(cluster: Installed, over: Values = {}): Promise<void> {
  await helmOnCluster(cluster, "upgrade", over, CHART, ["--install"]);
}

/** `helm upgrade`, with values that override those of the installation. @throws {Error} with helm's output */
export async function upgradeBerthChart(cluster: Installed, over: Values = {}, chart = CHART): Promise<void> {
  await helmOnCluster(cluster, "upgrade", over, chart);
}

/** `helm rollback` to the previous revision. @throws {Error} with helm's output */
export async function rollbackBerthChart(cluster: Pick<E2eCluster, "kubeconfig" | "dir">): Promise<void> {
  const args = ["rollback", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", HELM_TIMEOUT];
  await helmFor(cluster, args);
}

export async function uninstallBerthChart(cluster: Pick<E2eCluster, "kubeconfig" | "dir">): Promise<void> {
  const args = ["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait"];
  await helmFor(cluster, [...args, "--timeout", HELM_TIMEOUT]);
}

async function helmOnCluster(
  cluster: Installed,
  command: string,
  over: Values,
  chart = CHART,
  more: readonly string[] = [],
): Promise<void> {
  const where = ["--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", HELM_TIMEOUT];
  const args = [command, RELEASE, chart, ...where, ...more];
  await helmFor(cluster, args, { ...chartValues(cluster), ...over });
}

/** Runs helm on the cluster, without the user's own helm configuration. @throws {Error} with helm's output */
export async function helmFor(
  { kubeconfig, dir }: Pick<E2eCluster, "kubeconfig" | "dir">,
  args: readonly string[],
  values?: Values,
): Promise<void> {
  const home = join(dir, "helm");
  const env = { ...process.env, KUBECONFIG: kubeconfig, HELM_CONFIG_HOME: home, HELM_CACHE_HOME: home };
  const result = await helmWithValues(args, values, env);
  if (result.code !== 0) throw new Error(`helm ${args.join(" ")}: ${result.stderr}`);
}
