import { LABEL_ROLE, type Role } from "../src/api/names.ts";
import type { Pod } from "../src/kube/objects.ts";
import type { FateInput } from "../testbed/node/fate.ts";
import { SIMULATED_LABEL, type SimulatedNode, startNode } from "../testbed/node/node.ts";
import type { DemoCluster } from "./cluster.ts";
import type { DemoOptions } from "./options.ts";
import { SCRIPTED_WORK_MS } from "./sessions.ts";

/** The port of the busyProbe in the sample with always-on workers. */
export const BUSY_PORT = 9_000;

/**
 * Starts the demo's node. In a cluster that the demo does not own, it must attract no other Pods. A taint repels Pods
 * that do not tolerate it. Most DaemonSets tolerate every taint but select an operating system that this node does not
 * claim to have. A Pod that arrives anyway is simulated, never run as a process.
 */
export function startDemoNode(cluster: DemoCluster, options: DemoOptions): Promise<SimulatedNode> {
  const { namespace, nodeName: name, foreign, nodeKubeconfig: client } = cluster;
  const isOurs = (pod: Pod) => pod.metadata.namespace === namespace;
  return startNode({
    client,
    name,
    seed: options.seed,
    labels: foreign ? { "kubernetes.io/os": "simulated", "berth.dev/demo": name } : {},
    taints: foreign
      ? [
          { key: SIMULATED_LABEL, value: "true", effect: "NoSchedule" },
          { key: SIMULATED_LABEL, value: "true", effect: "NoExecute" },
        ]
      : [],
    runtime: (pod) => (options.scripted || (foreign && !isOurs(pod)) ? "scripted" : "process"),
    fates: (pod) => (options.scripted && isOurs(pod) ? playedBy(pod) : undefined),
  });
}

/** The script of a simulated worker: for one session, or one that polls. */
function playedBy({ metadata }: Pod): FateInput {
  return metadata.labels?.[LABEL_ROLE] === ("worker" satisfies Role)
    ? { kind: "poller", workMs: SCRIPTED_WORK_MS, busyPort: BUSY_PORT }
    : { kind: "worker", workMs: SCRIPTED_WORK_MS };
}
