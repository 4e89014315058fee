import type { Node, Pod, Taint } from "../kube/resource.ts";

/** What becomes of a Pod's node, as far as the Node says. */
export type NodeOutlook =
  | "stays"
  /** It may go: whoever has the choice takes another. */
  | "doubtful"
  /** It is being emptied, or does not answer: nothing is begun there any more. */
  | "leaves";

const UNSCHEDULABLE = "node.kubernetes.io/unschedulable";

/** Taints that say that a node goes or has gone; those of Kubernetes, Karpenter, the cluster autoscaler and clouds. */
const LEAVING = new Set([
  UNSCHEDULABLE,
  "node.kubernetes.io/unreachable",
  "node.kubernetes.io/not-ready",
  "node.kubernetes.io/out-of-service",
  "node.cloudprovider.kubernetes.io/shutdown",
  "karpenter.sh/disrupted",
  // Of versions before 1.0.
  "karpenter.sh/disruption",
  "ToBeDeletedByClusterAutoscaler",
  "DeletionCandidateOfClusterAutoscaler",
  "cloud.google.com/impending-node-termination",
  "aws-node-termination-handler/spot-itn",
  "aws-node-termination-handler/scheduled-maintenance",
  "aws-node-termination-handler/asg-lifecycle-termination",
  "aws-node-termination-handler/rebalance-recommendation",
]);

/** A taint that the scheduler would rather not see but puts up with: the successor of a Pod there might land there again. */
const SOFT = "PreferNoSchedule";
/** Of the effects of taints, the one that Pods can tolerate for a while. */
const NO_EXECUTE = "NoExecute";

/** The part of a Node that this is about. */
export type NodeSpec = Pick<NonNullable<Node["spec"]>, "unschedulable" | "taints">;

/**
 * Judges the node of a Pod. One that is not known stays: without permission to read Nodes nothing is different. What the Pod's
 * template tolerates is no reason to take the Pod away: its successor would be put on the same node.
 */
export function nodeOutlook(node: NodeSpec | undefined, pod: Pick<Pod, "spec">): NodeOutlook {
  const taints: Taint[] = [...(node?.taints ?? [])];
  // The taint follows the field a moment later.
  if (node?.unschedulable) taints.push({ key: UNSCHEDULABLE, effect: "NoSchedule" });
  const against = taints.filter((taint) => LEAVING.has(taint.key) && !tolerates(pod, taint));
  if (against.length === 0) return "stays";
  return against.every((taint) => taint.effect === SOFT || putsUpWith(pod, taint)) ? "doubtful" : "leaves";
}

/**
 * Every Pod tolerates a node's silence for a while, five minutes unless its template says otherwise, and the scheduler
 * takes no notice of such taints. A lost node has others beside it; one that came back keeps it for a moment, in which
 * a Pod that is taken away has its successor there at once, which is taken away in turn.
 */
function putsUpWith(pod: Pick<Pod, "spec">, taint: Taint): boolean {
  return taint.effect === NO_EXECUTE && tolerates(pod, taint, "for a while");
}

interface Toleration {
  key?: string;
  operator?: string;
  value?: string;
  effect?: string;
  tolerationSeconds?: number;
}

/** As the scheduler matches them (k8s.io/component-helpers, scheduling/corev1): for good, or at least for a while. */
function tolerates({ spec }: Pick<Pod, "spec">, taint: Taint, howLong?: "for a while"): boolean {
  const tolerations = (spec["tolerations"] ?? []) as readonly Toleration[];
  return tolerations.some(({ key, operator, value, effect, tolerationSeconds }) => {
    if (tolerationSeconds != null && howLong === undefined) return false;
    if (effect && effect !== taint.effect) return false;
    if (key && key !== taint.key) return false;
    return operator === "Exists" || (key !== undefined && (value ?? "") === (taint.value ?? ""));
  });
}
