/**
 * Limits of a whole Pod, for turns. An ephemeral container can't state limits. Since Kubernetes 1.34, the kubelet gives it
 * those of its Pod, from which V8 and the JVM size their heap. Earlier API servers drop the field, and earlier kubelets
 * ignore it.
 */
import { isRecord } from "../core/json.ts";
import type { Pod } from "../kube/resource.ts";
import { hasTurns } from "../pods/turns.ts";

/** Resources whose limit the kubelet passes on. */
const PASSED_ON = ["cpu", "memory"];

/** The reason of a Pod that a kubelet refuses because such limits are turned off on its node. */
export const POD_LIMITS_REFUSED = "PodLevelResourcesNotSupported";

/**
 * The Pod with the limits of its only container as its own. They bound the Pod's control group anyway. A Pod
 * with more containers gets none: its limits would be a sum, and would also apply to init containers without a limit.
 * @returns null: the Pod gets no such limits
 */
export function withPodLimits(pod: Pod): Pod | null {
  const { containers, initContainers = [], resources } = pod.spec;
  const [only] = containers;
  // The template may state its own.
  if (!hasTurns(pod) || resources !== undefined || containers.length !== 1 || initContainers.length > 0) return null;
  const stated = isRecord(only?.["resources"]) ? only["resources"]["limits"] : undefined;
  const limits = Object.entries(isRecord(stated) ? stated : {}).filter(
    ([name, limit]) => PASSED_ON.includes(name) && limit !== null,
  );
  if (limits.length === 0) return null;
  return { ...pod, spec: { ...pod.spec, resources: { limits: Object.fromEntries(limits) } } };
}
