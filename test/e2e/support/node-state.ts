import { NODES, type Node, type Pod } from "../../../src/kube/resource.ts";
import { type SimulatedNode, startNode } from "../../../testbed/node/node.ts";
import { nodeControl } from "./operator-process.ts";
import type { E2eWorld } from "./world.ts";

/** How soon a Pod leaves a node that is said to be lost, in seconds: Kubernetes' own default is five minutes. */
export const LEAVES_AFTER_SECONDS = 2;

/** Parts of a Pod's spec: it leaves a lost node soon, and has time to hear by a beat that its item is to stop. */
export const LEAVES_SOON = {
  terminationGracePeriodSeconds: 8,
  tolerations: ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"].map((key) => ({
    ...{ key, operator: "Exists", effect: "NoExecute" },
    tolerationSeconds: LEAVES_AFTER_SECONDS,
  })),
};

/**
 * Another node, which is always well and takes no Pod. Where all nodes of a cluster are silent, Kubernetes believes that
 * its own network is to blame, taints none and deletes nothing.
 */
export function startWellNode(world: E2eWorld): Promise<SimulatedNode> {
  const taints = [{ key: "example.com/nobody", effect: "NoSchedule" }];
  return startNode({ client: world.cluster.kubeconfig, name: "well", taints });
}

/** The node of a cluster of ours. */
export async function nodeNow(world: E2eWorld): Promise<Node> {
  const { nodeName } = await nodeControl(world).state();
  return await world.kube.get(NODES, { name: nodeName });
}

/** Waits until the node's condition Ready has this status: `Unknown` once kubelet was silent for too long. */
export function untilNodeReady(world: E2eWorld, wanted: "True" | "False" | "Unknown"): Promise<Node> {
  return world.until(`a node with Ready=${wanted}`, async () => {
    const node = await nodeNow(world);
    const { conditions = [] } = (node.status ?? {}) as { conditions?: { type: string; status: string }[] };
    return conditions.some(({ type, status }) => type === "Ready" && status === wanted) && node;
  });
}

/** kill -9 to all that a Pod's containers run, whatever Kubernetes thinks of it; its sandbox stays. */
export async function killContainersOf(world: E2eWorld, { metadata: { uid = "" } }: Pod): Promise<void> {
  const control = nodeControl(world);
  const programs = (await control.processes()).filter(({ arguments: [command] }) => command !== PAUSE);
  const files = programs.map(({ pid }) => `/proc/${pid}/cgroup`);
  // The path of a process's control group has its Pod's uid. Some are gone by now.
  const { stdout } = await control.run("grep", ["--files-with-matches", "--no-messages", uid, ...files]);
  const pids = [...stdout.matchAll(/^\/proc\/(\d+)\//gm)].map(([, pid = ""]) => pid);
  if (pids.length === 0) throw new Error(`nothing of Pod ${uid} runs`);
  await control.run("kill", ["-9", ...pids]);
}

/** What a sandbox runs. */
const PAUSE = "/bin/busybox";
