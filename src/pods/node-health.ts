import type { Node, Pod, Taint } from "../kube/resource.ts";

/** What a Node's spec says about the future of its Pods. */
export type NodeOutlook =
  | "stays"
  /** The node may be removed: prefer Pods on other nodes. */
  | "doubtful"
  /** The node does not answer, and may come back: start nothing there. Kubernetes evicts its Pods after a while. */
  | "silent"
  /** The node is being drained or removed: start nothing there. */
  | "leaves";

const UNSCHEDULABLE = "node.kubernetes.io/unschedulable";

/** Taints of nodes that do not answer. */
const SILENT = new Set(["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"]);

/** Taints of nodes that don't answer, are being removed, or are gone: of Kubernetes, Karpenter, autoscalers and clouds. */
const LEAVING = new Set([
  UNSCHEDULABLE,
  ...SILENT,
  "node.kubernetes.io/out-of-service",
  "node.cloudprovider.kubernetes.io/shutdown",
  "karpenter.sh/disrupted",
  // Before Karpenter 1.0.
  "karpenter.sh/disruption",
  "ToBeDeletedByClusterAutoscaler",
  "DeletionCandidateOfClusterAutoscaler",
  "cloud.google.com/impending-node-termination",
  "aws-node-termination-handler/spot-itn",
  "aws-node-termination-handler/scheduled-maintenance",
  "aws-node-termination-handler/asg-lifecycle-termination",
  "aws-node-termination-handler/rebalance-recommendation",
]);

/**
 * The effect of a taint that the scheduler avoids but accepts: the successor of a deleted Pod might land there again.
 */
const SOFT = "PreferNoSchedule";
/** The one taint effect that Pods can tolerate for a limited time. */
const NO_EXECUTE = "NoExecute";

/** The fields of a Node that decide its outlook. */
export type NodeSpec = Pick<NonNullable<Node["spec"]>, "unschedulable" | "taints">;

/**
 * Judges the node of a Pod. An unknown node stays, so nothing changes without permission to read Nodes. A taint that
 * the Pod's template tolerates is no reason to delete the Pod: its successor would land on the same node.
 */
export function nodeOutlook(node: NodeSpec | undefined, pod: Pick<Pod, "spec">): NodeOutlook {
  const taints: Taint[] = [...(node?.taints ?? [])];
  // The controller sets the taint a moment after the field.
  if (node?.unschedulable) taints.push({ key: UNSCHEDULABLE, effect: "NoSchedule" });
  const against = taints.filter((taint) => LEAVING.has(taint.key) && !tolerates(tolerationsOf(pod), taint));
  if (against.length === 0) return "stays";
  if (against.every((taint) => taint.effect === SOFT || toleratesForAWhile(pod, taint))) return "doubtful";
  return against.every(({ key }) => SILENT.has(key)) ? "silent" : "leaves";
}

/**
 * Whether the Pod tolerates the taint for a limited time. By default, every Pod tolerates an unresponsive node for five
 * minutes, and the scheduler ignores such taints. A lost node also has other taints. A node that came back keeps this
 * taint for a moment; a deleted Pod's successor would land there at once and be deleted in turn.
 */
function toleratesForAWhile(pod: Pick<Pod, "spec">, taint: Taint): boolean {
  return taint.effect === NO_EXECUTE && tolerates(tolerationsOf(pod), taint, "for a while");
}

/** A toleration of a Pod. */
export interface Toleration {
  key?: string;
  operator?: string;
  value?: string;
  effect?: string;
  tolerationSeconds?: number;
}

/**
 * Matches tolerations as the scheduler does (k8s.io/component-helpers, scheduling/corev1): permanent ones, or also
 * those for a limited time.
 */
export function tolerates(tolerations: readonly Toleration[], taint: Taint, howLong?: "for a while"): boolean {
  return tolerations.some(({ key, operator, value, effect, tolerationSeconds }) => {
    if (tolerationSeconds != null && howLong === undefined) return false;
    if (effect && effect !== taint.effect) return false;
    if (key && key !== taint.key) return false;
    return operator === "Exists" || (key !== undefined && (value ?? "") === (taint.value ?? ""));
  });
}

function tolerationsOf({ spec }: Pick<Pod, "spec">): readonly Toleration[] {
  return (spec["tolerations"] ?? []) as readonly Toleration[];
}
