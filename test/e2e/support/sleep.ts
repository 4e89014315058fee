/** Sessions that sleep in their Pods between work items. */
import type { ItemRecord } from "../../../simulator/item.ts";
import type { ScriptInput } from "../../../simulator/script.ts";
import type { ContainerStatus, Pod } from "../../../src/kube/resource.ts";
import { readPodState } from "../../../src/pods/pod-state.ts";
import { isAsleep } from "../../../src/pods/turns.ts";
import { type Served, sayMore, untilState } from "./session-life.ts";
import type { E2eWorld } from "./world.ts";

/** Part of `spec.sessions`. */
export const SLEEPS = { workspace: { type: "Pod", mountPath: "/workspace" } } as const;

/** Waits until the session sleeps after this item, and its Pod waits for the next one. */
export function untilAsleep(world: E2eWorld, item: ItemRecord): Promise<Pod> {
  return world.until(`the session sleeps after item ${item.id}`, () =>
    world.pods.find(
      (pod) =>
        isAsleep(pod) &&
        pod.metadata.deletionTimestamp === undefined &&
        pod.metadata.annotations?.["berth.dev/work-id"] === item.id &&
        readPodState(pod).is === "parked",
    ),
  );
}

/** Sends a message to a session that sleeps, and waits until it sleeps again in the same or another Pod. */
export async function sayAndSleep(world: E2eWorld, served: Pick<Served, "item">, script: ScriptInput): Promise<Served> {
  const item = await sayMore(world, served, script);
  await untilState(world, item, "stopped");
  return { item, pod: await untilAsleep(world, item) };
}

/** The statuses of all containers of the Pod that run work items, the oldest first. */
export function turnsOf(pod: Pod): readonly ContainerStatus[] {
  const turns = pod.status?.ephemeralContainerStatuses ?? [];
  return turns.toSorted((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
}
