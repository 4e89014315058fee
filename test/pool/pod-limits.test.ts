import { describe, expect, test } from "vitest";
import type { Container, Pod } from "../../src/kube/resource.ts";
import { withPodLimits } from "../../src/pool/pod-limits.ts";
import { keeperPod } from "../support/keeper-pods.ts";

const REF = { name: "berth-research-x", namespace: "agents" };
const limitsOf = (pod: Pod) => withPodLimits(pod)?.spec["resources"] ?? null;
/** The limits of a Pod whose only container has these resources. */
const limitsBy = (resources: unknown, spec: Partial<Pod["spec"]> = {}) =>
  limitsOf(keeperPod({ ...REF, container: { resources } as Partial<Container>, spec }));
const MEMORY = { limits: { memory: "2Gi" } };

describe("a Pod with turns gets its only container's limits as its own", () => {
  test.each([
    ["memory alone", { requests: { cpu: "100m", memory: "256Mi" }, limits: { memory: "2Gi" } }, { memory: "2Gi" }],
    ["memory and CPU, whatever their form", { limits: { cpu: 2, memory: 1_000 } }, { cpu: 2, memory: 1_000 }],
    ["no others", { limits: { memory: "2Gi", cpu: null, "ephemeral-storage": "1Gi" } }, { memory: "2Gi" }],
  ])("%s", (_, resources, limits) => {
    expect(limitsBy(resources)).toEqual({ limits });
  });

  test("and is otherwise unchanged", () => {
    const pod = keeperPod({ ...REF, container: { resources: MEMORY } as Partial<Container> });
    const { resources: _, ...spec } = withPodLimits(pod)?.spec ?? { containers: [] };
    expect({ ...pod, spec }).toEqual(pod);
  });
});

describe("a Pod gets no limits", () => {
  test.each<[string, unknown, Partial<Pod["spec"]>?]>([
    ["if its container has none", undefined],
    ["if its container has none of memory and CPU", { limits: { "ephemeral-storage": "1Gi" } }],
    ["if its container has requests only", { requests: { memory: "1Gi" } }],
    ["if its container's limits are empty", { limits: null }],
    ["if its template states some", MEMORY, { resources: { limits: { memory: "4Gi" } } }],
    ["if its template states that it has none", MEMORY, { resources: {} }],
    ["beside an init container, which it would also limit", MEMORY, { initContainers: [{ name: "seed" }] }],
  ])("%s", (_, resources, spec) => {
    expect(limitsBy(resources, spec)).toBeNull();
  });

  test("beside another container, or without turns", () => {
    const pod = keeperPod({ ...REF, container: { resources: MEMORY } as Partial<Container> });
    const [keeper] = pod.spec.containers as [Container];
    expect(limitsOf({ ...pod, spec: { ...pod.spec, containers: [keeper, { name: "proxy" }] } })).toBeNull();
    expect(limitsOf({ ...pod, metadata: { ...pod.metadata, annotations: {} } })).toBeNull();
  });
});
