import { isNotFound, KubeApiError } from "../../../../src/kube/errors.ts";
import { PODS, type Pod } from "../../../../src/kube/resource.ts";
import type { Stage } from "../stage.ts";
import { type Act, pick } from "./act.ts";

/** What users and the node do. */
export const CLUSTER = {
  "pod:deleted": withPod(busy, deletePod),
  "pod:evicted-by-api": withPod(busy, evict),
  "pod:evicted-by-node": withPod(busy, ({ world }, { metadata }) => world.node.evict(metadata)),
  "pod:killed": withPod(busy, ({ world }, { metadata }) => world.node.kill(metadata)),
  "pod:out-of-memory": withPod(busy, ({ world }, { metadata }) => world.node.kill(metadata, { by: "OOMKilled" })),
  "node:lost": (stage, choice) => goes(stage, () => stage.world.node.fail(), pick([600, 2_500, 6_000], choice)),
  "node:rebooted": (stage) => {
    stage.witness.excuseAll();
    stage.world.node.reboot();
    return true;
  },
  "node:drained": (stage, choice) => goes(stage, () => stage.world.node.drain(), pick([300, 1_500], choice)),
  "node:shut-down": (stage, choice) => goes(stage, () => stage.world.node.shutDown(1), pick([100, 1_000], choice)),
} as const satisfies Record<string, Act>;

function busy(stage: Stage): Pod[] {
  return stage.busyPods();
}

/** Acts on one of these Pods, and tells the witness that the Pod's end has a cause. */
export function withPod<Played extends Stage>(
  find: (stage: Played) => readonly Pod[],
  act: (stage: Played, pod: Pod) => Promise<boolean> | boolean,
): Act<Played> {
  return async (stage, choice) => {
    const pod = await stage.aim(() => {
      const pods = find(stage);
      return pods.length === 0 ? undefined : pick(pods, choice);
    });
    if (!pod) return false;
    stage.witness.excuse(pod);
    return await act(stage, pod);
  };
}

export function deletePod({ world }: Stage, { metadata }: Pod): Promise<boolean> {
  return unlessGone(world.kube.delete(PODS, { namespace: world.namespace, name: metadata.name ?? "" }));
}

/** Evicts through the Eviction API, as kubectl drain does. A PodDisruptionBudget may refuse it, as intended. */
export async function evict({ world }: Stage, pod: Pod): Promise<boolean> {
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

/** True if the write succeeded; false if its object does not exist. */
export async function unlessGone(write: Promise<unknown>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}
