import { describe, expect, test } from "vitest";
import type { FateInput } from "../../../testbed/node/fate.ts";
import { boundPod, PodBench, type PodShape } from "./pod-bench.ts";
import { normalized, RECORDED_NAMES, recorded } from "./recorded.ts";

interface Case extends PodShape {
  readonly fates?: Record<string, FateInput>;
  /** Brings the Pod to the moment of the record. */
  readonly play: (bench: PodBench) => Promise<unknown>;
}

const MOUNTS = [
  { name: "workspace", mountPath: "/workspace" },
  { name: "memory", mountPath: "/mnt/memory" },
  { name: "tmp", mountPath: "/tmp" },
];
const WORKER = {
  name: "worker",
  resources: { limits: { cpu: "1", memory: "96Mi" }, requests: { cpu: "10m", memory: "96Mi" } },
  securityContext: { runAsUser: 10_001, runAsGroup: 10_001 },
  volumeMounts: MOUNTS,
};
const SIDECAR = { name: "proxy", restartPolicy: "Always" };
const AT_ONCE: FateInput = { kind: "exit", code: 0, afterMs: 100 };
const succeeded = (bench: PodBench) => bench.untilPhase("Succeeded");
const failed = (bench: PodBench) => bench.untilPhase("Failed");
const runs = (bench: PodBench) => bench.untilState("c", "running");
const waitsFor = (reason: string) => (bench: PodBench) => bench.untilState("c", reason);
const finalized = (bench: PodBench) => bench.until(() => bench.events.includes("finalized"));

/** Deletes a running Pod and continues to its terminal phase, before its object is removed. */
const deleted = (graceSeconds: number) => async (bench: PodBench) => {
  await runs(bench);
  bench.deletePod(graceSeconds);
  await bench.until(() => bench.last.phase === "Succeeded" || bench.last.phase === "Failed");
};

const CASES: Record<string, Case> = {
  running: { play: runs },
  succeeded: { fates: { c: AT_ONCE }, play: succeeded },
  "completed-container-phase-still-running": { fates: { c: AT_ONCE }, play: waitsFor("Completed") },
  "exit-1": { fates: { c: { kind: "exit", code: 1, message: "no session token\n" } }, play: failed },
  "exit-1-message-from-log": {
    fates: { c: { kind: "exit", code: 1, message: "Error: handleItem: workId is required\n" } },
    play: failed,
  },
  "create-container-config-error": {
    containers: [{ envFrom: [{ secretRef: { name: "work-1" } }] }],
    play: waitsFor("CreateContainerConfigError"),
  },
  "create-container-config-error-key": {
    containers: [{ env: [{ name: "WORK", valueFrom: { secretKeyRef: { name: "work-1", key: "WORK" } } }] }],
    async play(bench) {
      bench.setSecret("work-1", { OTHER: "x" });
      await waitsFor("CreateContainerConfigError")(bench);
    },
  },
  "create-container-config-error-root": {
    containers: [{ securityContext: { runAsNonRoot: true } }],
    fates: { c: { kind: "root-image" } },
    play: waitsFor("CreateContainerConfigError"),
  },
  "err-image-never-pull": {
    containers: [{ image: "missing.invalid/worker:9", imagePullPolicy: "Never" }],
    play: waitsFor("ErrImageNeverPull"),
  },
  "err-image-pull": { containers: [{ image: "127.0.0.1:1/worker:9" }], play: waitsFor("ErrImagePull") },
  "image-pull-back-off": { containers: [{ image: "127.0.0.1:1/worker:9" }], play: waitsFor("ImagePullBackOff") },
  "invalid-image-name": { containers: [{ image: "127.0.0.1:1/Worker:9" }], play: waitsFor("InvalidImageName") },
  "run-container-error": { fates: { c: { kind: "start-error" } }, play: waitsFor("StartError") },
  "start-error-failed": { fates: { c: { kind: "start-error" } }, play: failed },
  "oom-killed": { containers: [WORKER], fates: { worker: { kind: "oom", afterMs: 200 } }, play: failed },
  "oom-child-killed": {
    containers: [{ resources: { limits: { memory: "24Mi" }, requests: { memory: "24Mi" } } }],
    fates: { c: { kind: "oom", afterMs: 200 } },
    play: failed,
  },
  "oom-in-child-worker-survives": {
    containers: [WORKER],
    fates: { worker: { kind: "oom-child", code: 0, afterMs: 200, message: '{"status":null,"signal":"SIGKILL"}' } },
    play: succeeded,
  },
  "active-deadline-exceeded": {
    spec: { activeDeadlineSeconds: 4 },
    fates: { c: { kind: "run", onTerm: { code: 0 } } },
    play: failed,
  },
  "evicted-emptydir-size": {
    containers: [{ volumeMounts: [{ name: "w", mountPath: "/w" }] }],
    spec: { volumes: [{ name: "w", emptyDir: { sizeLimit: "10Mi" } }] },
    fates: { c: { kind: "evicted", cause: "emptydir", afterMs: 1_000, onTerm: "ignore" } },
    play: failed,
  },
  "evicted-ephemeral-storage": {
    containers: [{ resources: { limits: { "ephemeral-storage": "20Mi" }, requests: { "ephemeral-storage": "20Mi" } } }],
    fates: { c: { kind: "evicted", afterMs: 1_000, onTerm: "ignore" } },
    play: failed,
  },
  "deleting-running": { play: runs },
  "evicted-by-api": { play: runs },
  preempted: { containers: [{ resources: { requests: { cpu: "1200m" } } }], play: runs },
  "deleted-exit-143": { play: deleted(30) },
  "deleted-sigterm-handled-exit-0": { fates: { c: { kind: "run", onTerm: { code: 0 } } }, play: deleted(30) },
  "sigterm-ignored-exit-137": { fates: { c: { kind: "run", onTerm: "ignore" } }, play: deleted(3) },
  "deleted-last-seen-exit-0": {
    fates: { c: { kind: "run", onTerm: { code: 0 } } },
    async play(bench) {
      await deleted(2)(bench);
      await finalized(bench);
    },
  },
  "sigterm-ignored-last-seen": {
    fates: { c: { kind: "run", onTerm: "ignore" } },
    async play(bench) {
      await deleted(3)(bench);
      await finalized(bench);
    },
  },
  "init-container-running": {
    initContainers: [{ name: "prep" }],
    fates: { prep: { kind: "exit", afterMs: 5_000 } },
    play: (bench) => bench.untilState("prep", "running"),
  },
  "init-container-failed": {
    initContainers: [{ name: "prep" }],
    fates: { prep: { kind: "exit", code: 3, message: "bad config\n" } },
    play: failed,
  },
  "sidecar-running": { initContainers: [SIDECAR], play: runs },
  "sidecar-main-done": {
    initContainers: [SIDECAR],
    fates: { c: AT_ONCE, proxy: { kind: "run", onTerm: { code: 0, afterMs: 500 } } },
    play: waitsFor("Completed"),
  },
  "sidecar-succeeded": {
    initContainers: [SIDECAR],
    fates: { c: AT_ONCE, proxy: { kind: "run", onTerm: { code: 0 } } },
    play: succeeded,
  },
  "sidecar-ignores-sigterm": {
    initContainers: [SIDECAR],
    spec: { terminationGracePeriodSeconds: 3 },
    fates: { c: AT_ONCE, proxy: { kind: "run", onTerm: "ignore" } },
    play: succeeded,
  },
  "sidecar-crash-loop": {
    initContainers: [SIDECAR],
    fates: { proxy: { kind: "exit", code: 2, afterMs: 1_000 } },
    play: (bench) => bench.untilState("proxy", "CrashLoopBackOff"),
  },
  "second-container-keeps-pod-running": {
    containers: [{}, { name: "other" }],
    fates: { c: AT_ONCE },
    play: waitsFor("Completed"),
  },
};

/** Recorded before any kubelet had the Pod, with the scheduler's messages. */
const SCHEDULERS = ["scheduling-gated", "unschedulable-cpu", "unschedulable-node-selector"];

describe("the status matches the one that a real kubelet reported", () => {
  test.each(Object.entries(CASES))("%s", async (name, { fates, play, ...shape }) => {
    const bench = new PodBench(boundPod(shape), fates);
    await play(bench);
    expect(normalized(bench.last)).toEqual(normalized(recorded(name).status));
  });

  test("every record is played, except those of the scheduler", () => {
    expect([...Object.keys(CASES), ...SCHEDULERS].sort()).toEqual([...RECORDED_NAMES].sort());
  });
});
