import { LABEL_TEMPLATE_HASH } from "../api/names.ts";
import type { Pod } from "../kube/resource.ts";
import type { FreePod } from "./capacity.ts";
import type { NodeOutlook } from "./node-health.ts";
import { readPodState } from "./pod-state.ts";

/** A Pod that no claim has, as capacity is planned with it; null for one whose container runs, or ran. */
export function freePodOf(pod: Pod, outlook: NodeOutlook): FreePod | null {
  const state = readPodState(pod).is;
  if (state === "ended" || state === "running") return null;
  return {
    name: pod.metadata.name ?? "",
    hash: pod.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
    state,
    createdAtMs: Date.parse(pod.metadata.creationTimestamp ?? "") || 0,
    scheduledAtMs: scheduledAt(pod),
    leaving: outlook === "leaves",
  };
}

function scheduledAt(pod: Pod): number | null {
  const condition = pod.status?.conditions?.find(({ type, status }) => type === "PodScheduled" && status === "True");
  const at = Date.parse(condition?.lastTransitionTime ?? "");
  return Number.isNaN(at) ? null : at;
}
