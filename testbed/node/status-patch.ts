import type { Pod, PodStatus } from "../../src/kube/objects.ts";

/**
 * Returns a strategic merge patch that sets the status of a Pod without changing the conditions of other owners (the
 * scheduler, the taint manager). Removed fields are null, because in a merge, absent means unchanged. With the UID, the
 * API server rejects the patch (409) if another Pod has the name by now.
 */
export function statusPatch(pod: Pod, status: PodStatus): Record<string, unknown> {
  const { conditions = [], resources, ...rest } = status;
  return {
    metadata: { uid: pod.metadata.uid },
    status: {
      reason: null,
      message: null,
      ...rest,
      resources: { limits: null, requests: null, ...(resources as Record<string, unknown> | undefined) },
      conditions: conditions.map((condition) => ({ reason: null, message: null, ...condition })),
    },
  };
}
