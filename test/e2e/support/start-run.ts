import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GROUP, PLURAL } from "../../../src/api/names.ts";
import { keepAlive, realClock } from "../../../src/core/clock.ts";
import { KubeClient } from "../../../src/kube/client.ts";
import { loadKubeConfig } from "../../../src/kube/config.ts";
import { isNotFound } from "../../../src/kube/errors.ts";
import { CRDS } from "../../../src/kube/resource.ts";
import { findClientTools } from "../../../testbed/cluster/client-tools.ts";
import { MissingToolError } from "../../../testbed/cluster/missing.ts";
import { type Progress, showProgress } from "../../../testbed/cluster/progress.ts";
import { buildImages } from "../../../testbed/images/images.ts";
import { GVISOR_CLASS } from "../../../testbed/real-node/gvisor.ts";
import { startNodeCluster } from "../../../testbed/real-node/node-cluster.ts";
import { checkRequirements } from "../../../testbed/real-node/requirements.ts";
import { installBerthChart, uninstallBerthChart } from "./install.ts";
import { LogFollower } from "./log-follower.ts";
import { PodLogKeeper } from "./pod-log-keeper.ts";
import { ProcessWatch } from "./process-watch.ts";
import { type E2eCluster, OPERATOR_NAMESPACE } from "./provided.ts";
import type { E2eSettings } from "./settings.ts";
import { removeNamespace, SIMULATOR_NAMESPACE, startSimulatorPod } from "./simulator-pod.ts";

const CRD = `${PLURAL}.${GROUP}`;
/**
 * Twice the test bed's own value: a kubelet must not count as lost if it is silent for a moment, because a test stopped
 * it or the API server, or because its machine is overloaded.
 */
const LOST_NODE = "--node-monitor-grace-period=20s";

/** What a run has: a cluster with Berth and the simulator, or the reason why there is none. */
export interface Run {
  readonly cluster: E2eCluster | undefined;
  readonly skipped: string;
  stop(): Promise<void>;
}

/**
 * Starts all that tests share, or finds what was started before.
 * @throws what is missing here, if that is no reason to skip
 */
export async function startRun(settings: E2eSettings): Promise<Run> {
  if (settings.attachTo !== undefined) {
    const cluster = JSON.parse(await readFile(settings.attachTo, "utf8")) as E2eCluster;
    return { cluster, skipped: "", stop: async () => {} };
  }
  // Pending promises don't keep a process alive, neither in the set-up nor at the end.
  using _alive = keepAlive();
  const progress = showProgress();
  await using stack = new AsyncDisposableStack();
  try {
    const cluster = await startAll(settings, progress, stack);
    const rest = stack.move();
    return { cluster, skipped: "", stop: () => disposeAlive(rest) };
  } catch (error) {
    progress.clear();
    if (!(error instanceof MissingToolError) || settings.strict) throw error;
    console.error(`The end-to-end tests are skipped. ${error.message}`);
    return { cluster: undefined, skipped: error.message, stop: async () => {} };
  }
}

async function disposeAlive(stack: AsyncDisposableStack): Promise<void> {
  using _alive = keepAlive();
  await stack.disposeAsync();
}

async function startAll(settings: E2eSettings, progress: Progress, stack: AsyncDisposableStack): Promise<E2eCluster> {
  // Checked first, so that nothing slow starts if a requirement is missing.
  if (!settings.useCluster) await checkRequirements();
  const tools = await findClientTools({ progress });
  const node = settings.useCluster ? undefined : await startNode(settings, progress, stack);
  // In the node's folder, which is removed with it even if this process is killed.
  const dir = await mkdtemp(join(node?.dir ?? tmpdir(), "berth-e2e-"));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const kubeconfig = node?.kubeconfig ?? settings.kubeconfig;
  if (kubeconfig === undefined) throw new Error("KUBECONFIG is not set");
  const kube = new KubeClient({ access: loadKubeConfig(kubeconfig), clock: realClock });
  stack.defer(() => kube.close());

  progress.update("Starting the work simulator");
  const { images } = settings;
  if (!node) stack.defer(() => removeNamespace(kube, SIMULATOR_NAMESPACE));
  const simulator = await startSimulatorPod(kube, images.simulator);
  const follower = stack.use(new LogFollower({ kubectl: join(tools, "kubectl"), kubeconfig, dir }));
  await follower.start();
  if (node) {
    stack.use(new ProcessWatch(node.control, dir));
    stack.use(new PodLogKeeper(node.state.podLogs, dir));
  }
  progress.update("Installing Berth");
  const cluster = {
    ...{ kubeconfig, dir, images, simulator, hasGvisor: await hasGvisor(kube) },
    ...(node && { nodeControl: node.controlSocket }),
  };
  if (!node) {
    stack.defer(async () => {
      await uninstallBerthChart(cluster);
      await removeNamespace(kube, OPERATOR_NAMESPACE);
      // The chart keeps the CRD to protect its users' Environments; here there are none.
      await kube.delete(CRDS, { name: CRD });
    });
  }
  await installBerthChart(kube, cluster);
  progress.clear();
  return cluster;
}

/** Starts this run's own node, with the images on it. */
async function startNode({ long }: E2eSettings, progress: Progress, stack: AsyncDisposableStack) {
  const { archive } = await buildImages({ progress });
  const extraArgs = { controllerManager: [LOST_NODE] };
  return stack.use(await startNodeCluster({ progress, gvisor: long, images: [archive], extraArgs }));
}

async function hasGvisor(kube: KubeClient): Promise<boolean> {
  try {
    await kube.raw("GET", `/apis/node.k8s.io/v1/runtimeclasses/${GVISOR_CLASS}`);
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}
