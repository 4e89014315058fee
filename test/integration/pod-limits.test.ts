import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { PODS } from "../../src/kube/resource.ts";
import { turnPatch } from "../../src/pods/turns.ts";
import { withPodLimits } from "../../src/pool/pod-limits.ts";
import { useCluster } from "../support/cluster.ts";
import { keeperPod } from "../support/keeper-pods.ts";
import { mutatePods } from "../support/mutated-pods.ts";

// What API servers make of limits of a whole Pod.

/** The API server learns of a policy by a watch. A longer delay is a fault. */
const IN_FORCE_MS = 60_000;

const cluster = useCluster();
const minor = Number((await cluster.api.get<{ minor: string }>("/version")).minor);
let kube: KubeClient;
let count = 0;

beforeAll(() => {
  kube = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig) });
});
afterAll(() => kube?.close());

/** A Pod that no scheduler serves. */
function podIn(namespace: string, resources: object): Pod {
  count += 1;
  const container = { resources } as Partial<Container>;
  return keeperPod({ name: `sleeper-${count}`, namespace, container, spec: { schedulerName: "none" } });
}

const RESOURCES = { requests: { cpu: "100m", memory: "256Mi" }, limits: { memory: "2Gi" } };

function limited(pod: Pod): Pod {
  const found = withPodLimits(pod);
  if (!found) throw new Error("the Pod gets no limits");
  return found;
}

test.runIf(minor >= 34)("a Pod keeps its limits, requests what its container does, and takes turns", async () => {
  const namespace = await cluster.createNamespace("pod-limits");
  const made = await kube.create(PODS, limited(podIn(namespace, RESOURCES)));
  expect(made.spec["resources"]).toEqual(RESOURCES);
  expect(made.status?.["qosClass"]).toBe("Burstable");
  const patched = await kube.patch(PODS, { namespace, name: made.metadata.name ?? "" }, turnPatch(made, 1), {
    type: "strategic",
    subresource: "ephemeralcontainers",
  });
  expect(patched.spec.ephemeralContainers).toHaveLength(1);
});

test.runIf(minor >= 34)("a Pod whose container requests its limits stays Guaranteed", async () => {
  const namespace = await cluster.createNamespace("pod-limits");
  const amounts = { cpu: "1", memory: "1Gi" };
  const made = await kube.create(PODS, limited(podIn(namespace, { limits: amounts })));
  expect(made.spec["resources"]).toEqual({ requests: amounts, limits: amounts });
  expect(made.status?.["qosClass"]).toBe("Guaranteed");
});

test.runIf(minor < 34)("an earlier API server creates the Pod without its limits", async () => {
  const namespace = await cluster.createNamespace("pod-limits");
  const made = await kube.create(PODS, limited(podIn(namespace, RESOURCES)));
  expect(made.spec["resources"]).toBeUndefined();
});

/** Injects a native sidecar into every Pod of a namespace. Dispose the result to stop that. */
async function injectSidecars(namespace: string, resources: string): Promise<AsyncDisposable> {
  const sidecar = `Object.spec.initContainers{name: "injected", image: "proxy:1", restartPolicy: "Always"${resources}}`;
  const injection = await mutatePods(kube, namespace, {
    patchType: "ApplyConfiguration",
    applyConfiguration: { expression: `Object{spec: Object.spec{initContainers: [${sidecar}]}}` },
  });
  const isInForce = async () => {
    const made = await kube.create(PODS, podIn(namespace, RESOURCES), { dryRun: true });
    return made.spec.initContainers?.[0]?.name === "injected";
  };
  await vi.waitUntil(isInForce, { timeout: IN_FORCE_MS });
  return injection;
}

// Policies that mutate are generally available since 1.36.
// Older API servers derive the Pod's requests before admission, and then refuse its limits.
describe.runIf(minor >= 37)("beside an injected sidecar", () => {
  test.each([
    ["requests memory", '{requests: {"memory": "128Mi"}}', { cpu: "100m", memory: "384Mi" }],
    ["requests a resource that has no limit", '{requests: {"cpu": "10m"}}', { cpu: "110m", memory: "256Mi" }],
    ["has a limit", '{limits: {"memory": "128Mi"}}', { cpu: "100m", memory: "384Mi" }],
  ])("that %s, the Pod keeps its limits, and requests what both containers do", async (_, resources, requests) => {
    const namespace = await cluster.createNamespace("pod-limits");
    const stated = `, resources: Object.spec.initContainers.resources${resources}`;
    await using _injection = await injectSidecars(namespace, stated);
    const made = await kube.create(PODS, limited(podIn(namespace, RESOURCES)));
    expect(made.spec["resources"]).toEqual({ limits: RESOURCES.limits, requests });
    expect(made.spec.initContainers).toHaveLength(1);
  });

  test("without resources, the Pod keeps its limits, which the sidecar shares", async () => {
    const namespace = await cluster.createNamespace("pod-limits");
    await using _injection = await injectSidecars(namespace, "");
    const made = await kube.create(PODS, limited(podIn(namespace, RESOURCES)));
    expect(made.spec["resources"]).toEqual(RESOURCES);
    expect(made.spec.initContainers).toHaveLength(1);
  });
});
