/** Nodes that stop answering. */
import { type SimulatedNode, startNode } from "../node/node.ts";
import type { Act } from "./act.ts";
import type { Recording, Stage } from "./stage.ts";

/**
 * Without another healthy node, the control plane evicts no Pods, because it suspects its own fault ("full disruption",
 * pkg/controller/nodelifecycle). No Pod runs on this node.
 */
function otherNode(stage: Stage): Promise<SimulatedNode> {
  const taints = [{ key: "example.com/nobody", effect: "NoSchedule" }];
  return startNode({ client: stage.cluster.kubeconfig, name: "node-2", taints });
}

/** Records what the taint manager does 5 s after the node was marked as lost. */
async function lose(stage: Stage, recordings: readonly Recording[]): Promise<void> {
  stage.did("kubelet was stopped");
  await stage.cluster.control.stopKubelet("SIGKILL");
  await stage.until("lost", () => stage.node()?.ready.startsWith("Unknown"));
  await stage.until("deleted by the taint manager", () =>
    recordings.every(({ pod }) => pod?.metadata.deletionTimestamp !== undefined),
  );
}

export const lost: Act = {
  name: "lost",
  async play(stage) {
    await using _other = await otherNode(stage);
    const note = "on a node that is lost and comes back";
    const running = await stage.pod("lost-running", `a running Pod ${note}`);
    const parked = await stage.pod("lost-parked", `a parked Pod ${note}`, { parked: true });
    const stays = await stage.pod(
      "lost-tolerated",
      "a running Pod that tolerates every taint, on a node that is lost and comes back",
      {
        spec: { tolerations: [{ operator: "Exists" }] },
      },
    );
    const done = await stage.pod("lost-finished", "a Pod that ended before its node was lost", {
      container: { command: ["/bin/sh", "-c", "exit 0"] },
    });
    await stage.running(running, stays);
    await stage.parked(parked);
    await stage.failed(done);
    await lose(stage, [running, parked]);
    stage.did("kubelet was started");
    await stage.cluster.control.startKubelet();
    await stage.gone(running, parked);
    await stage.quiet(stays, done);
  },
};

export const lostAlone: Act = {
  name: "lost-alone",
  async play(stage) {
    const note = "of the only node, which is lost and comes back";
    const running = await stage.pod("lost-alone-running", `a running Pod ${note}`);
    const parked = await stage.pod("lost-alone-parked", `a parked Pod ${note}`, { parked: true });
    await stage.running(running);
    await stage.parked(parked);
    stage.did("kubelet was stopped");
    await stage.cluster.control.stopKubelet("SIGKILL");
    await stage.until("given up", () => running.pod?.status?.conditions?.some(isUnready));
    await stage.quiet(running, parked);
    stage.did("kubelet was started");
    await stage.cluster.control.startKubelet();
    await stage.quiet(running, parked);
  },
};

export const lostForGood: Act = {
  name: "lost-for-good",
  async play(stage) {
    await using _other = await otherNode(stage);
    const note = "on a lost node whose Node object is deleted";
    const running = await stage.pod("node-deleted-running", `a running Pod ${note}`);
    const parked = await stage.pod("node-deleted-parked", `a parked Pod ${note}`, { parked: true });
    await stage.running(running);
    await stage.parked(parked);
    await lose(stage, [running, parked]);
    stage.did("the Node was deleted");
    await stage.cluster.api.delete(`/api/v1/nodes/${stage.cluster.nodeName}`);
    await stage.gone(running, parked);
  },
};

export const outOfService: Act = {
  name: "out-of-service",
  async play(stage) {
    await using _other = await otherNode(stage);
    const note = "on a lost node that is tainted as out of service";
    const running = await stage.pod("out-of-service-running", `a running Pod ${note}`);
    const parked = await stage.pod("out-of-service-parked", `a parked Pod ${note}`, { parked: true });
    await stage.running(running);
    await stage.parked(parked);
    await lose(stage, [running, parked]);
    await stage.taint("node.kubernetes.io/out-of-service", "NoExecute");
    await stage.gone(running, parked);
  },
};

function isUnready({ type, status }: { type: string; status: string }): boolean {
  return type === "Ready" && status === "False";
}
