import { describe, expect, test } from "vitest";
import type { Node, Pod, PodStatus } from "../../../src/kube/objects.ts";
import { comparable, Normalizer, nodeView, type Sequence } from "../../../testbed/recorder/sequence.ts";

const UID = "4f0c6b8e-2b6f-4a53-9d8a-8f8a3f8b7c11";
const POD: Pod = {
  metadata: { name: "lost-running", namespace: "recorded", uid: UID, creationTimestamp: "2031-05-06T07:08:09Z" },
  spec: { containers: [] },
};

describe("a recording doesn't reveal where and when it was made", () => {
  const normalizer = new Normalizer(POD);

  test.each([
    [
      "times count from the Pod's creation",
      { startTime: "2031-05-06T07:08:19Z" },
      { startTime: "2026-01-01T00:00:10Z" },
    ],
    [
      "the start time of a container that never started is kept",
      { startedAt: "1970-01-01T00:00:00Z" },
      { startedAt: "1970-01-01T00:00:00Z" },
    ],
    [
      "names are replaced, even in messages",
      { message: `secret "lost-running" not found, pod=lost-running_recorded(${UID})` },
      { message: 'secret "work-1" not found, pod=work-1_tb(00000000-0000-4000-8000-000000000001)' },
    ],
    ["images lose their host", { image: "localhost/worker:1" }, { image: "worker:1" }],
    ["images lose their registry", { image: "127.0.0.1:5001/worker:1" }, { image: "worker:1" }],
    [
      "addresses of the Pod are replaced",
      { podIP: "10.9.8.7", podIPs: [{ ip: "10.9.8.7" }] },
      { podIP: "10.244.0.7", podIPs: [{ ip: "10.244.0.7" }] },
    ],
    ["addresses of the machine are left out", { hostIP: "192.0.2.1", hostIPs: [{ ip: "192.0.2.1" }] }, {}],
    ["an empty id stays empty", { imageID: "", containerID: "" }, { imageID: "", containerID: "" }],
    [
      "ids of containers in messages are replaced",
      { message: `container ${"ab".repeat(32)} is gone` },
      { message: `container ${"0".repeat(64)} is gone` },
    ],
  ])("%s", (_, value, expected) => {
    expect(normalizer.apply<unknown>(value)).toEqual(expected);
  });

  test("the metadata only contains what changes in a Pod's life", () => {
    const pod = { ...POD, metadata: { ...POD.metadata, generation: 2, deletionTimestamp: "2031-05-06T07:09:09Z" } };
    expect(normalizer.metadata(pod)).toEqual({
      generation: 2,
      creationTimestamp: "2026-01-01T00:00:00Z",
      deletionTimestamp: "2026-01-01T00:01:00Z",
    });
  });
});

describe("comparing two recordings", () => {
  const recording = (status: PodStatus): Sequence => ({
    note: "",
    recorded: { kubernetes: "v1", containerd: "v2" },
    spec: { containers: [] },
    steps: [{ type: "updated", metadata: {}, status }],
  });
  const same = (a: PodStatus, b: PodStatus) =>
    JSON.stringify(comparable(recording(a))) === JSON.stringify(comparable(recording(b)));

  test.each([
    ["times are ignored", { startTime: "2026-01-01T00:00:01Z" }, { startTime: "2026-01-01T00:00:09Z" }, true],
    ["amounts are ignored", { message: "available: 193368Ki" }, { message: "available: 12.5Gi" }, true],
    ["words count", { message: "low on memory" }, { message: "low on disk" }, false],
    ["reasons count", { reason: "Evicted" }, { reason: "Terminated" }, false],
    ["a missing start counts", { startedAt: "1970-01-01T00:00:00Z" }, { startedAt: "2026-01-01T00:00:00Z" }, false],
  ])("%s", (_, a, b, expected) => expect(same(a, b)).toBe(expected));
});

test("a Node is recorded with its readiness, taints, and cordon, in a fixed order", () => {
  const taint = (key: string, effect: string) => ({ key, effect, timeAdded: "2031-05-06T07:08:09Z" });
  const node = {
    metadata: { name: "node-1" },
    spec: { unschedulable: true, taints: [taint("b", "NoSchedule"), taint("a", "NoExecute")] },
    status: { conditions: [{ type: "Ready", status: "Unknown", reason: "NodeStatusUnknown" }] },
  } as Node;
  expect(nodeView(node)).toEqual({
    ready: "Unknown NodeStatusUnknown",
    unschedulable: true,
    taints: [
      { key: "a", effect: "NoExecute" },
      { key: "b", effect: "NoSchedule" },
    ],
  });
  expect(nodeView({ metadata: {}, spec: {}, status: {} } as Node)).toEqual({ ready: "Unknown" });
});
