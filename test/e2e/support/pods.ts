import { type ContainerStateTerminated, PODS, type Pod } from "../../../src/kube/resource.ts";
import { readPodState } from "../../../src/pods/pod-state.ts";
import type { Served } from "./session-life.ts";
import type { E2eWorld } from "./world.ts";

const SECOND_MS = 1_000;

/** The current state of the Pod; its last known state if it is deleted. */
export function latest(world: E2eWorld, pod: Pod): Pod {
  return world.history(pod).at(-1) ?? pod;
}

/** The end of the session's container as reported by the kubelet; undefined if never reported. */
export function terminatedOf(world: E2eWorld, { pod }: Pick<Served, "pod">): ContainerStateTerminated | undefined {
  const name = pod.metadata.annotations?.["berth.dev/session-container"];
  for (const { status } of world.history(pod).toReversed()) {
    const container = status?.containerStatuses?.find((container) => container.name === name);
    if (container?.state?.terminated) return container.state.terminated;
  }
  return undefined;
}

/** A counter of this Environment over all operators. It may have no series before the first count. */
export async function counted(
  world: E2eWorld,
  name: string,
  labels?: Readonly<Record<string, string>>,
): Promise<number> {
  return (await world.metric(name, labels)) ?? 0;
}

/** Pods that use capacity now, whatever they wait for. */
export function alive(world: E2eWorld): Pod[] {
  return world.pods.filter((pod) => readPodState(pod).is !== "ended" && !pod.metadata.deletionTimestamp);
}

/** The number of Pods that ever existed. */
export function created(world: E2eWorld): number {
  return world.views.everyPod.length;
}

/**
 * Seconds for which the session's container has run, by this machine's clock. Its worker may send a heartbeat before
 * the kubelet reports the start.
 */
export async function ranSeconds(world: E2eWorld, { pod }: Pick<Served, "pod">): Promise<number> {
  const { startedAtMs } = await world.until(`Pod ${pod.metadata.name} is said to run`, () => {
    const state = readPodState(latest(world, pod));
    return state.is === "running" && state;
  });
  return Math.ceil((Date.now() - startedAtMs) / SECOND_MS);
}

/** Lowers the Pod's deadline, so that the kubelet ends the Pod in this many seconds. */
export async function endPodIn(world: E2eWorld, pod: Pod, seconds: number): Promise<void> {
  const startTime = await world.until("the Pod's start", () => latest(world, pod).status?.startTime);
  const age = Math.ceil((Date.now() - Date.parse(startTime)) / SECOND_MS);
  const ref = { namespace: world.namespace, name: pod.metadata.name ?? "" };
  await world.kube.patch(PODS, ref, { spec: { activeDeadlineSeconds: age + seconds } }, { type: "merge" });
}

/** Evicts a Pod as `kubectl drain` does. */
export async function evictPod(world: E2eWorld, pod: Pod): Promise<void> {
  const { name } = pod.metadata;
  const { namespace } = world;
  await world.kube.raw("POST", `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, {
    ...{ apiVersion: "policy/v1", kind: "Eviction" },
    metadata: { name, namespace },
  });
}

/** Deletes a Pod as `kubectl delete pod` does; with `force`, as with `--force --grace-period=0`. */
export async function deletePod(world: E2eWorld, pod: Pod, force = false): Promise<void> {
  const ref = { namespace: world.namespace, name: pod.metadata.name ?? "" };
  await world.kube.delete(PODS, ref, force ? { gracePeriodSeconds: 0 } : {});
}
