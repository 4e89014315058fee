import { LABEL_ROLE, type Role } from "../src/api/names.ts";
import type { Pod } from "../src/kube/objects.ts";
import type { FateInput } from "../testbed/node/fate.ts";
import { type SimulatedNode, startNode } from "../testbed/node/node.ts";
import type { DemoCluster } from "./cluster.ts";
import type { DemoOptions } from "./options.ts";
import { SCRIPTED_WORK_MS } from "./sessions.ts";

/** The port of the busyProbe in the sample with always-on workers. */
export const BUSY_PORT = 9_000;

/** Starts the demo's node. */
export function startDemoNode(cluster: DemoCluster, options: DemoOptions): Promise<SimulatedNode> {
  return startNode({
    client: cluster.nodeKubeconfig,
    name: cluster.nodeName,
    seed: options.seed,
    runtime: options.scripted ? "scripted" : "process",
    fates: (pod) => (options.scripted && pod.metadata.namespace === cluster.namespace ? playedBy(pod) : undefined),
  });
}

/** The script of a simulated worker: for one session, or one that polls. */
function playedBy({ metadata }: Pod): FateInput {
  return metadata.labels?.[LABEL_ROLE] === ("worker" satisfies Role)
    ? { kind: "poller", workMs: SCRIPTED_WORK_MS, busyPort: BUSY_PORT }
    : { kind: "worker", workMs: SCRIPTED_WORK_MS };
}
