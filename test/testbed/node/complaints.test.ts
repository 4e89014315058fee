import { describe, expect, test } from "vitest";
import type { KubeClient } from "../../../src/kube/client.ts";
import { KubeApiError } from "../../../src/kube/errors.ts";
import { silentLogger } from "../../../src/observe/logger.ts";
import { EventWriter } from "../../../testbed/node/event-writer.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { boundPod, PodBench } from "./pod-bench.ts";

const SANDBOX = "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = ";

describe("a Pod whose sandbox can't be created", () => {
  test("stays in ContainerCreating without an address, and its Events say why, until it can be created", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "sandbox", times: 2, message: "no room" } });
    await bench.until(() => bench.complaints.length === 1);
    expect(bench.stateOf("c")).toBe("ContainerCreating");
    expect(bench.last.podIP).toBeUndefined();
    expect(bench.last.conditions?.find(({ type }) => type === "PodReadyToStartContainers")?.status).toBe("False");
    await bench.untilState("c", "running");
    expect(bench.complaints).toEqual([`${SANDBOX}no room`, `${SANDBOX}no room`]);
  });

  test.each([
    [{ runAsGroup: 7 }, true],
    [{ runAsGroup: 7, runAsUser: 7 }, false],
    [{ runAsUser: 7 }, false],
  ])("is one with a group and no user, as in containerd: %j", async (securityContext, fails) => {
    const bench = new PodBench(boundPod({ spec: { securityContext } }));
    await bench.until(() => bench.complaints.length > 0 || bench.stateOf("c") === "running");
    expect(bench.complaints.length > 0).toBe(fails);
    if (fails) expect(bench.complaints[0]).toContain('user group "7" is specified without user');
  });
});

test.each([
  ["a ConfigMap", { configMap: { name: "mine" } }, 'configmap "mine" not found'],
  ["a Secret", { secret: { secretName: "mine" } }, 'secret "mine" not found'],
])("Events report a missing volume of %s", async (_what, source, words) => {
  const bench = new PodBench(boundPod({ spec: { volumes: [{ name: "data", ...source }] } }));
  await bench.until(() => bench.complaints.length > 1);
  expect(new Set(bench.complaints)).toEqual(
    new Set([`FailedMount: MountVolume.SetUp failed for volume "data" : ${words}`]),
  );
});

describe("Events of a node", () => {
  function writer(answer: () => void = () => {}) {
    const requests: unknown[] = [];
    const client = {
      create: async (_resource: unknown, event: unknown) => {
        requests.push(event);
        answer();
      },
      patch: async (_resource: unknown, ref: unknown, patch: unknown) => void requests.push({ ref, patch }),
    } as unknown as KubeClient;
    const events = new EventWriter({ client, clock: new VirtualClock(), logger: silentLogger, node: "n" });
    return { events, requests };
  }
  const complaint = { reason: "FailedMount", message: "m" } as const;

  test("increase their count while they say the same", async () => {
    const { events, requests } = writer();
    const pod = boundPod();
    for (const message of ["m", "m", "other"]) events.tell(pod, { ...complaint, message });
    await events.ended();
    const involvedObject = { kind: "Pod", name: "work-1", namespace: "tb", uid: pod.metadata.uid };
    const common = { involvedObject, type: "Warning", count: 1, source: { component: "kubelet", host: "n" } };
    const created = requests.filter((request) => Object.hasOwn(request as object, "metadata"));
    expect(created).toEqual([
      expect.objectContaining({ ...common, involvedObject: expect.objectContaining(involvedObject), message: "m" }),
      expect.objectContaining({ reason: "FailedMount", message: "other" }),
    ]);
    const { name } = (created[0] as { metadata: { name: string } }).metadata;
    const counted = requests.filter((request) => !created.includes(request));
    expect(counted).toEqual([{ ref: { namespace: "tb", name }, patch: expect.objectContaining({ count: 2 }) }]);
  });

  test("are dropped while the node is lost, and if the API server rejects them", async () => {
    const { events, requests } = writer(() => {
      throw new KubeApiError("the namespace is being terminated", { status: 403 });
    });
    events.isPaused = true;
    events.tell(boundPod(), complaint);
    expect(requests).toEqual([]);
    events.isPaused = false;
    events.tell(boundPod(), complaint);
    await events.ended();
    expect(requests).toHaveLength(1);
  });
});
