import type { Pod, PodStatus } from "../../src/kube/objects.ts";

/**
 * A strategic merge patch that makes the status of a Pod what is given, and leaves conditions of others alone (the
 * scheduler's, the taint manager's). Fields that went away are nulls: in a merge, absent means unchanged. The UID
 * makes the API server refuse the patch (409) when the name belongs to another Pod by now.
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
