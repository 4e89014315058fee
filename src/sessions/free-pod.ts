import { ANNOTATION_NEEDS, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import { allowsAll, type PodPolicy, readNeeds } from "../api/pod-policy.ts";
import type { Pod } from "../kube/resource.ts";
import type { FreePod } from "./capacity.ts";
import type { NodeOutlook } from "./node-health.ts";
import { readPodState } from "./pod-state.ts";

/** What a Pod says of itself. */
interface Told extends Omit<FreePod, "leaving" | "forbidden"> {
  readonly needs: readonly string[] | null;
}

/** All free Pods are looked at whenever one of them changes, and a cache never changes an object. */
const told = new WeakMap<Pod, Told | null>();

/**
 * A Pod that no claim has, as capacity is planned with it; null for one whose container runs, or ran.
 * @param pod of a cache: it is read once
 */
export function freePodOf(pod: Pod, outlook: NodeOutlook, policy: PodPolicy): FreePod | null {
  let read = told.get(pod);
  if (read === undefined) {
    read = toldBy(pod);
    told.set(pod, read);
  }
  if (read === null) return null;
  const { needs, ...free } = read;
  // One that does not say is of an earlier version.
  return { ...free, leaving: outlook === "leaves", forbidden: needs === null || !allowsAll(policy, needs) };
}

function toldBy(pod: Pod): Told | null {
  const state = readPodState(pod).is;
  if (state === "ended" || state === "running") return null;
  return {
    name: pod.metadata.name ?? "",
    hash: pod.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
    state,
    createdAtMs: Date.parse(pod.metadata.creationTimestamp ?? "") || 0,
    scheduledAtMs: scheduledAt(pod),
    needs: readNeeds(pod.metadata.annotations?.[ANNOTATION_NEEDS]),
  };
}

function scheduledAt(pod: Pod): number | null {
  const condition = pod.status?.conditions?.find(({ type, status }) => type === "PodScheduled" && status === "True");
  const at = Date.parse(condition?.lastTransitionTime ?? "");
  return Number.isNaN(at) ? null : at;
}
