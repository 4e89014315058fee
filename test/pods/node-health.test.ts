import { describe, expect, test } from "vitest";
import type { Taint } from "../../src/kube/resource.ts";
import { type NodeOutlook, type NodeSpec, nodeOutlook } from "../../src/pods/node-health.ts";

const pod = (...tolerations: Record<string, unknown>[]) => ({ spec: { containers: [], tolerations } });
const taint = (key: string, effect = "NoSchedule", value?: string): Taint =>
  value === undefined ? { key, effect } : { key, effect, value };
const tainted = (...taints: Taint[]): NodeSpec => ({ taints });

describe("the outlook of a node", () => {
  test.each<[string, NodeSpec | undefined, NodeOutlook]>([
    ["unknown", undefined, "stays"],
    ["without a field", {}, "stays"],
    ["cordoned", { unschedulable: true }, "leaves"],
    [
      "cordoned, with its taint",
      { unschedulable: true, taints: [taint("node.kubernetes.io/unschedulable")] },
      "leaves",
    ],
    ["only the taint of a cordon", tainted(taint("node.kubernetes.io/unschedulable")), "leaves"],
    ["disrupted by Karpenter", tainted(taint("karpenter.sh/disrupted")), "leaves"],
    [
      "disrupted by an older Karpenter",
      tainted(taint("karpenter.sh/disruption", "NoSchedule", "disrupting")),
      "leaves",
    ],
    ["being removed by the cluster autoscaler", tainted(taint("ToBeDeletedByClusterAutoscaler")), "leaves"],
    [
      "a candidate for removal by the cluster autoscaler",
      tainted(taint("DeletionCandidateOfClusterAutoscaler", "PreferNoSchedule")),
      "doubtful",
    ],
    ["unreachable", tainted(taint("node.kubernetes.io/unreachable", "NoExecute")), "silent"],
    ["not ready", tainted(taint("node.kubernetes.io/not-ready", "NoExecute")), "silent"],
    ["a spot instance that is ending", tainted(taint("aws-node-termination-handler/spot-itn")), "leaves"],
    [
      "a soft and a hard taint",
      tainted(taint("DeletionCandidateOfClusterAutoscaler", "PreferNoSchedule"), taint("karpenter.sh/disrupted")),
      "leaves",
    ],
    ["dedicated to some Pods", tainted(taint("dedicated", "NoSchedule", "agents")), "stays"],
    ["short of memory", tainted(taint("node.kubernetes.io/memory-pressure")), "stays"],
  ])("%s", (_, node, expected) => expect(nodeOutlook(node, pod())).toBe(expected));
});

describe("keeps a Pod whose template tolerates the taint, since its successor would land on the same node", () => {
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
    ["it for a limited time", { key: KEY, operator: "Exists", tolerationSeconds: 300 }, "leaves"],
    ["nothing, with an empty toleration", {}, "leaves"],
  ])("%s", (_, toleration, expected) => expect(nodeOutlook(cordoned, pod(toleration))).toBe(expected));

  test.each(["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"])(
    "%s for a limited time: the scheduler ignores the taint, so the Pod stays unless there is another taint",
    (key) => {
      const patient = pod({ key, operator: "Exists", effect: "NoExecute", tolerationSeconds: 300 });
      expect(nodeOutlook(tainted(taint(key, "NoExecute")), patient)).toBe("doubtful");
      expect(nodeOutlook(tainted(taint(key, "NoExecute"), taint(key)), patient)).toBe("silent");
      expect(nodeOutlook({ unschedulable: true, taints: [taint(key, "NoExecute")] }, patient)).toBe("leaves");
    },
  );

  test("requires a toleration for each taint", () => {
    const node = { unschedulable: true, taints: [taint("karpenter.sh/disrupted")] };
    expect(nodeOutlook(node, pod({ key: KEY, operator: "Exists" }))).toBe("leaves");
    expect(
      nodeOutlook(node, pod({ key: KEY, operator: "Exists" }, { key: "karpenter.sh/disrupted", operator: "Exists" })),
    ).toBe("stays");
  });
});
