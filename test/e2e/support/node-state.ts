import { NODES, type Node, type Pod } from "../../../src/kube/resource.ts";
import { type SimulatedNode, startNode } from "../../../testbed/node/node.ts";
import type { NodeProcess } from "../../../testbed/real-node/control-protocol.ts";
import { nodeControl } from "./operator-process.ts";
import type { E2eWorld } from "./world.ts";

/** Seconds after which a Pod leaves a lost node; the default of Kubernetes is five minutes. */
export const LEAVES_AFTER_SECONDS = 2;

/**
 * Parts of a Pod's spec: the Pod leaves a lost node soon, and its worker has time to receive the stop with a heartbeat.
 */
export const LEAVES_SOON = {
  terminationGracePeriodSeconds: 8,
  tolerations: ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"].map((key) => ({
    ...{ key, operator: "Exists", effect: "NoExecute" },
    tolerationSeconds: LEAVES_AFTER_SECONDS,
  })),
};

/**
 * Starts another node that is always healthy and accepts no Pod. If all nodes of a cluster are silent, Kubernetes
 * blames its own network, and neither taints nodes nor deletes Pods.
 */
export function startWellNode(world: E2eWorld): Promise<SimulatedNode> {
  const taints = [{ key: "example.com/nobody", effect: "NoSchedule" }];
  return startNode({ client: world.cluster.kubeconfig, name: "well", taints });
}

/** The node of our own cluster. */
export async function nodeNow(world: E2eWorld): Promise<Node> {
  const { nodeName } = await nodeControl(world).state();
  return await world.kube.get(NODES, { name: nodeName });
}

/** Waits until the node's condition Ready has this status; `Unknown` means that the kubelet was silent for too long. */
export function untilNodeReady(world: E2eWorld, wanted: "True" | "False" | "Unknown"): Promise<Node> {
  return world.until(`a node with Ready=${wanted}`, async () => {
    const node = await nodeNow(world);
    const { conditions = [] } = (node.status ?? {}) as { conditions?: { type: string; status: string }[] };
    return conditions.some(({ type, status }) => type === "Ready" && status === wanted) && node;
  });
}

/** Kills all processes of a Pod's containers with SIGKILL, without telling Kubernetes. The sandbox stays. */
export async function killContainersOf(world: E2eWorld, pod: Pod): Promise<void> {
  const programs = (await processesOf(world, pod)).filter(({ arguments: [command] }) => command !== PAUSE);
  await kill(world, programs);
}

/** Kills everything of a Pod with SIGKILL, as a power failure does: its containers, its sandbox, and their shim. */
export async function killSandboxOf(world: E2eWorld, pod: Pod): Promise<void> {
  const processes = await processesOf(world, pod);
  const sandbox = processes.find(({ arguments: [command] }) => command === PAUSE);
  const shim = (await nodeControl(world).processes()).find(({ pid }) => pid === sandbox?.parent);
  if (!shim) throw new Error(`Pod ${pod.metadata.name} has no sandbox`);
  await kill(world, [shim, ...processes]);
}

/** The processes of a Pod. */
export async function processesOf(world: E2eWorld, { metadata: { uid = "" } }: Pod): Promise<readonly NodeProcess[]> {
  const control = nodeControl(world);
  const all = await control.processes();
  const files = all.map(({ pid }) => `/proc/${pid}/cgroup`);
  // The path of a process's control group contains its Pod's uid. Some processes may have ended by now.
  const { stdout } = await control.run("grep", ["--files-with-matches", "--no-messages", uid, ...files]);
  const pids = new Set([...stdout.matchAll(/^\/proc\/(\d+)\//gm)].map(([, pid]) => Number(pid)));
  return all.filter(({ pid }) => pids.has(pid));
}

/** Sends a signal to processes of the node. */
export async function kill(world: E2eWorld, processes: readonly NodeProcess[], signal = "KILL"): Promise<void> {
  if (processes.length === 0) throw new Error("there is no process to send a signal to");
  await nodeControl(world).run("kill", [`-${signal}`, ...processes.map(({ pid }) => String(pid))]);
}

/** Stops the kubelet's process with SIGSTOP: its connections stay open, and it answers nothing. */
export async function freezeKubelet(world: E2eWorld): Promise<void> {
  const all = await nodeControl(world).processes();
  await kill(
    world,
    all.filter(({ arguments: [command = ""] }) => command.endsWith("/kubelet")),
    "STOP",
  );
}

/** The program of a sandbox. */
export const PAUSE = "/bin/busybox";
