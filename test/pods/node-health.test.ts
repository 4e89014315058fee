import { describe, expect, test } from "vitest";
import type { Taint } from "../../src/kube/resource.ts";
import { type NodeOutlook, type NodeSpec, nodeOutlook } from "../../src/pods/node-health.ts";

const pod = (...tolerations: Record<string, unknown>[]) => ({ spec: { containers: [], tolerations } });
const taint = (key: string, effect = "NoSchedule", value?: string): Taint =>
  value === undefined ? { key, effect } : { key, effect, value };
const tainted = (...taints: Taint[]): NodeSpec => ({ taints });

describe("a node stays or goes", () => {
  test.each<[string, NodeSpec | undefined, NodeOutlook]>([
    ["not known", undefined, "stays"],
    ["nothing said of it", {}, "stays"],
    ["cordoned", { unschedulable: true }, "leaves"],
    [
      "cordoned, and the taint is there by now",
      { unschedulable: true, taints: [taint("node.kubernetes.io/unschedulable")] },
      "leaves",
    ],
    ["the taint of a cordon alone", tainted(taint("node.kubernetes.io/unschedulable")), "leaves"],
    ["Karpenter takes it away", tainted(taint("karpenter.sh/disrupted")), "leaves"],
    ["an older Karpenter does", tainted(taint("karpenter.sh/disruption", "NoSchedule", "disrupting")), "leaves"],
    ["the cluster autoscaler takes it away", tainted(taint("ToBeDeletedByClusterAutoscaler")), "leaves"],
    [
      "the cluster autoscaler may take it away",
      tainted(taint("DeletionCandidateOfClusterAutoscaler", "PreferNoSchedule")),
      "doubtful",
    ],
    ["it does not answer", tainted(taint("node.kubernetes.io/unreachable", "NoExecute")), "leaves"],
    ["it is not ready", tainted(taint("node.kubernetes.io/not-ready", "NoExecute")), "leaves"],
    ["a spot instance that ends", tainted(taint("aws-node-termination-handler/spot-itn")), "leaves"],
    [
      "one soft and one hard word",
      tainted(taint("DeletionCandidateOfClusterAutoscaler", "PreferNoSchedule"), taint("karpenter.sh/disrupted")),
      "leaves",
    ],
    ["kept for some Pods", tainted(taint("dedicated", "NoSchedule", "agents")), "stays"],
    ["short of memory", tainted(taint("node.kubernetes.io/memory-pressure")), "stays"],
  ])("%s", (_, node, expected) => expect(nodeOutlook(node, pod())).toBe(expected));
});

describe("what the template tolerates is no reason: the successor would land there again", () => {
  const cordoned: NodeSpec = { unschedulable: true };
  const KEY = "node.kubernetes.io/unschedulable";

  test.each<[string, Record<string, unknown>, NodeOutlook]>([
    ["everything", { operator: "Exists" }, "stays"],
    ["this taint", { key: KEY, operator: "Exists" }, "stays"],
    ["this taint's effect", { key: KEY, operator: "Exists", effect: "NoSchedule" }, "stays"],
    ["its value, which is empty", { key: KEY }, "stays"],
    ["another value", { key: KEY, operator: "Equal", value: "x" }, "leaves"],
    ["another effect", { key: KEY, operator: "Exists", effect: "NoExecute" }, "leaves"],
    ["another taint", { key: "other", operator: "Exists" }, "leaves"],
    ["it for a while", { key: KEY, operator: "Exists", tolerationSeconds: 300 }, "leaves"],
    ["nothing in particular", {}, "leaves"],
  ])("%s", (_, toleration, expected) => expect(nodeOutlook(cordoned, pod(toleration))).toBe(expected));

  test.each(["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"])(
    "%s for a while: the scheduler takes no notice of that, so the Pod stays while nothing else is said of the node",
    (key) => {
      const patient = pod({ key, operator: "Exists", effect: "NoExecute", tolerationSeconds: 300 });
      expect(nodeOutlook(tainted(taint(key, "NoExecute")), patient)).toBe("doubtful");
      expect(nodeOutlook(tainted(taint(key, "NoExecute"), taint(key)), patient)).toBe("leaves");
      expect(nodeOutlook({ unschedulable: true, taints: [taint(key, "NoExecute")] }, patient)).toBe("leaves");
    },
  );

  test("all of several must be tolerated", () => {
    const node = { unschedulable: true, taints: [taint("karpenter.sh/disrupted")] };
    expect(nodeOutlook(node, pod({ key: KEY, operator: "Exists" }))).toBe("leaves");
    expect(
      nodeOutlook(node, pod({ key: KEY, operator: "Exists" }, { key: "karpenter.sh/disrupted", operator: "Exists" })),
    ).toBe("stays");
  });
});
