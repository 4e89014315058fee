import { isNotFound, KubeApiError } from "../../../../src/kube/errors.ts";
import { PODS, type Pod, SECRETS } from "../../../../src/kube/resource.ts";
import { runningSession } from "../looks.ts";
import type { Stage } from "../stage.ts";
import { type Act, type Acts, pick } from "./act.ts";

const EDITED = "testbed.berth.dev/edited";

export const CLUSTER: Acts<"pod" | "node" | "claim"> = {
  "pod:deleted": withPod("running", deletePod),
  "pod:parked-deleted": withPod("parked", deletePod),
  "pod:evicted-by-api": withPod("running", evict),
  "pod:evicted-by-node": withPod("running", ({ world }, { metadata }) => world.node.evict(metadata)),
  "pod:killed": withPod("running", ({ world }, { metadata }) => world.node.kill(metadata)),
  "pod:out-of-memory": withPod("running", ({ world }, { metadata }) => world.node.kill(metadata, { by: "OOMKilled" })),
  "node:lost": (stage, choice) => goes(stage, () => stage.world.node.fail(), pick([600, 2_500, 6_000], choice)),
  "node:rebooted": (stage) => {
    stage.witness.excuseAll();
    stage.world.node.reboot();
    return true;
  },
  "node:drained": (stage, choice) => goes(stage, () => stage.world.node.drain(), pick([300, 1_500], choice)),
  "node:shut-down": (stage, choice) => goes(stage, () => stage.world.node.shutDown(1), pick([100, 1_000], choice)),
  "claim:edited": async (stage, choice) => {
    const { world } = stage;
    const claim = await stage.aim(() => (world.claims.length > 0 ? pick(world.claims, choice) : undefined));
    if (!claim) return false;
    const ref = { namespace: world.namespace, name: claim.metadata.name ?? "" };
    const patch = { metadata: { labels: { [EDITED]: String(choice) } } };
    return await unlessGone(world.kube.patch(SECRETS, ref, patch, { type: "merge" }));
  },
};

/** Acts on a Pod whose session runs, or on one that is parked, and says so to whoever watches for ends without a cause. */
function withPod(which: "running" | "parked", act: (stage: Stage, pod: Pod) => Promise<boolean> | boolean): Act {
  return async (stage, choice) => {
    const { world } = stage;
    const pod = await stage.aim(() => {
      const busy = () => world.pods.filter((each) => runningSession(each) && !each.metadata.deletionTimestamp);
      const pods = which === "parked" ? world.parked : busy();
      return pods.length === 0 ? undefined : pick(pods, choice);
    });
    if (!pod) return false;
    stage.witness.excuse(pod);
    return await act(stage, pod);
  };
}

function deletePod({ world }: Stage, { metadata }: Pod): Promise<boolean> {
  return unlessGone(world.kube.delete(PODS, { namespace: world.namespace, name: metadata.name ?? "" }));
}

/** By the Eviction API, as kubectl drain does; a budget may refuse it, which is what it is for. */
async function evict({ world }: Stage, pod: Pod): Promise<boolean> {
  const { namespace } = world;
  const { name = "" } = pod.metadata;
  const body = { apiVersion: "policy/v1", kind: "Eviction", metadata: { namespace, name } };
  try {
    await world.kube.raw("POST", `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, body);
    return true;
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 429) return true;
    if (isNotFound(error)) return false;
    throw error;
  }
}

async function goes(stage: Stage, act: () => unknown, backAfterMs: number): Promise<true> {
  stage.witness.excuseAll();
  await act();
  stage.later(backAfterMs, async () => {
    await stage.world.node.recover();
    await stage.world.node.cordon(false);
  });
  return true;
}

async function unlessGone(write: Promise<unknown>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}
