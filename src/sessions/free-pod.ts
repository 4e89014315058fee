import { ANNOTATION_NEEDS, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import { allowsAll, type PodPolicy, readNeeds } from "../api/pod-policy.ts";
import type { Pod } from "../kube/resource.ts";
import type { NodeOutlook } from "../pods/node-health.ts";
import { stateOf } from "../pods/pod-state.ts";
import type { FreePod } from "./capacity.ts";

/** What a Pod says of itself; `free` is null for one whose container runs, or ran. */
interface Read {
  readonly needs: readonly string[] | null;
  free: FreePod | null;
}

/** All free Pods are looked at whenever one of them changes, and a cache never changes an object: each is read once. */
const known = new WeakMap<Pod, Read>();

/** When a Pod of a cache was made, by the API server's clock; 0 where that is not said, and for one whose container runs, or ran. */
export function createdAtMs(pod: Pod): number {
  return readOnce(pod).free?.createdAtMs ?? 0;
}

/**
 * A Pod that no claim has, as capacity is planned with it; null for one whose container runs, or ran.
 * @param pod of a cache
 */
export function freePodOf(pod: Pod, outlook: NodeOutlook, policy: PodPolicy): FreePod | null {
  const read = readOnce(pod);
  const { free, needs } = read;
  if (free === null) return null;
  const leaving = outlook === "leaves";
  // One that does not say is of an earlier version.
  const forbidden = needs === null || !allowsAll(policy, needs);
  if (free.leaving !== leaving || free.forbidden !== forbidden) read.free = { ...free, leaving, forbidden };
  return read.free;
}

function readOnce(pod: Pod): Read {
  let read = known.get(pod);
  if (read === undefined) {
    read = readFree(pod);
    known.set(pod, read);
  }
  return read;
}

function readFree(pod: Pod): Read {
  const state = stateOf(pod);
  if (state.is === "ended" || state.is === "running") return { needs: null, free: null };
  const free = {
    name: pod.metadata.name ?? "",
    hash: pod.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
    state: state.is,
    createdAtMs: Date.parse(pod.metadata.creationTimestamp ?? "") || 0,
    scheduledAtMs: scheduledAt(pod),
    leaving: false,
    forbidden: false,
  };
  return { needs: readNeeds(pod.metadata.annotations?.[ANNOTATION_NEEDS]), free };
}

function scheduledAt(pod: Pod): number | null {
  const condition = pod.status?.conditions?.find(({ type, status }) => type === "PodScheduled" && status === "True");
  const at = Date.parse(condition?.lastTransitionTime ?? "");
  return Number.isNaN(at) ? null : at;
}
