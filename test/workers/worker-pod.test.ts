import { describe, expect, test } from "vitest";
import type { ContainerStatus, Pod } from "../../src/kube/resource.ts";
import { isCounted, readWorkerPod } from "../../src/workers/worker-pod.ts";
import { type PodOptions, podOf } from "./worker-pods.ts";

const running = (name: string): ContainerStatus => ({ name, state: { running: {} }, restartCount: 2 });
const waiting = (name: string): ContainerStatus => ({ name, state: { waiting: {} }, restartCount: 0 });

/** A Pod with these containers that names its worker. */
function podWith(containerStatuses: ContainerStatus[], worker?: string): Pod {
  const pod = podOf("a");
  const annotations = worker === undefined ? {} : { "berth.dev/session-container": worker };
  return { ...pod, metadata: { ...pod.metadata, annotations }, status: { ...pod.status, containerStatuses } };
}

describe("whether the worker's program runs", () => {
  test.each<[string, Pod, boolean]>([
    ["the named container runs", podWith([waiting("proxy"), running("worker")], "worker"), true],
    ["only a sidecar runs", podWith([running("proxy"), waiting("worker")], "worker"), false],
    ["a template with another container name", podWith([running("agent")], "agent"), true],
    ["without a name, one container runs", podWith([waiting("a"), running("b")]), true],
    ["the named container is missing, and another one runs", podWith([running("b")], "worker"), true],
    ["without a name, no container runs", podWith([waiting("a")]), false],
    ["without a status", podWith([], "worker"), false],
  ])("%s", (_what, pod, isRunning) => {
    expect(readWorkerPod(pod).isRunning).toBe(isRunning);
  });

  test("counts only the restarts of the worker's container", () => {
    expect(readWorkerPod(podWith([running("proxy"), waiting("worker")], "worker")).restarts).toBe(0);
  });
});

test.each([
  ["9000/busy", { port: 9000, path: "/busy" }],
  ["80/", { port: 80, path: "/" }],
  ["/busy", null],
  ["none", null],
  [undefined, null],
])("reads the probe annotation %s as %o", (value, probe) => {
  const pod = podOf("a");
  const annotations = value === undefined ? {} : { "berth.dev/busy-probe": value };
  expect(readWorkerPod({ ...pod, metadata: { ...pod.metadata, annotations } }).probe).toEqual(probe);
});

test("does not count Pods that end or have ended as replicas", () => {
  const counted = (options: PodOptions) => isCounted(readWorkerPod(podOf("a", options)));
  const ends: PodOptions[] = [{ ending: true }, { phase: "Failed" }, { phase: "Succeeded" }];
  expect([counted({}), ...ends.map(counted)]).toEqual([true, false, false, false]);
});
