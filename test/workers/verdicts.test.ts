import { describe, expect, test } from "vitest";
import type { ContainerState, Deployment, Pod } from "../../src/kube/resource.ts";
import type { ScalerView } from "../../src/workers/scaler.ts";
import { capacityVerdict, scalingVerdict } from "../../src/workers/verdicts.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { podOf } from "./worker-pods.ts";

const NOW_MS = Date.UTC(2030, 0, 2);
const NO_USE: Parameters<typeof capacityVerdict>[2] = {
  replicas: 0,
  max: 3,
  depth: 0,
  nowMs: NOW_MS,
  wasReady: true,
  waitsFor: null,
};

describe("the verdict on capacity", () => {
  const deployment = (message?: string): Deployment => ({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "berth-research-1" },
    spec: { selector: {}, template: { spec: { containers: [] } } },
    ...(message ? { status: { conditions: [{ type: "ReplicaFailure", status: "True", message }] } } : {}),
  });
  const waiting = (reason: string, message: string) =>
    podOf("a", { ready: false, state: { waiting: { reason, message } } });
  const NO_CPU = "0/3 nodes are available: 3 Insufficient cpu.";
  const unscheduled = (spec: Partial<Pod["spec"]> = {}, reason = "Unschedulable", message = NO_CPU): Pod => {
    const pod = podOf("a", { ready: false, state: {} });
    const condition = { type: "PodScheduled", status: "False", reason, message };
    return { ...pod, spec: { ...pod.spec, ...spec }, status: { ...pod.status, conditions: [condition] } };
  };

  test.each<[string, Pod[], Deployment[], typeof NO_USE, string, string]>([
    ["no problem", [podOf("a")], [deployment()], NO_USE, "Available", "workers can be created"],
    [
      "no worker has been ready yet",
      [],
      [],
      { ...NO_USE, wasReady: false },
      "CapacityUnchecked",
      "no worker of the current template has been ready yet",
    ],
    [
      "the maximum is reached and more work waits",
      [],
      [],
      { ...NO_USE, replicas: 3, depth: 1 },
      "AtMaximum",
      "maxReplicas",
    ],
    ["the maximum is reached and no work waits", [], [], { ...NO_USE, replicas: 3 }, "Available", ""],
    [
      "a quota",
      [],
      [deployment('pods "x" is forbidden: exceeded quota: q')],
      NO_USE,
      "QuotaExceeded",
      "raise the quota",
    ],
    ["a policy", [], [deployment("denied by policy p")], NO_USE, "PreparationFailing", "denied by policy p"],
    [
      "a node without the runtime",
      [podOf("a", { ready: false, state: {} })],
      [],
      { ...NO_USE, waitsFor: "FailedCreatePodSandBox: no runtime; install it" },
      "PreparationFailing",
      "workers do not run: FailedCreatePodSandBox: no runtime; install it",
    ],
    [
      "a scheduling gate",
      [unscheduled({ schedulingGates: [{ name: "kueue.x-k8s.io/admission" }] }, "SchedulingGated", "blocked")],
      [],
      NO_USE,
      "SchedulingGated",
      "a worker waits for its scheduling gates (kueue.x-k8s.io/admission); check the controllers that remove them",
    ],
    [
      "an image that can't be read",
      [waiting("ImageInspectError", 'Failed to inspect image "x"')],
      [],
      NO_USE,
      "ImagePullFailing",
      "waits in ImageInspectError",
    ],
    [
      "another reason of the kubelet",
      [waiting("PreStartHookError", "the hook failed")],
      [],
      NO_USE,
      "PreparationFailing",
      "container worker waits in PreStartHookError: the hook failed",
    ],
    ["a container that is being prepared", [waiting("ContainerCreating", "")], [], NO_USE, "Available", ""],
    ["no suitable node", [unscheduled()], [], NO_USE, "Unschedulable", "Insufficient cpu; add nodes"],
    [
      "no node for a RuntimeClass",
      [unscheduled({ runtimeClassName: "gvisor" })],
      [],
      NO_USE,
      "Unschedulable",
      "no node takes a worker of RuntimeClass gvisor: 0/3 nodes are available",
    ],
    [
      "no image",
      [waiting("ImagePullBackOff", "no such image")],
      [],
      NO_USE,
      "ImagePullFailing",
      "no such image; correct",
    ],
    [
      "a crash loop",
      [waiting("CrashLoopBackOff", "back-off 10s restarting")],
      [],
      NO_USE,
      "PreparationFailing",
      "CrashLoopBackOff",
    ],
    [
      "a missing Secret",
      [waiting("CreateContainerConfigError", 'secret "k" not found')],
      [],
      NO_USE,
      "PreparationFailing",
      'secret "k"',
    ],
  ])("%s", (_what, pods, deployments, use, reason, words) => {
    const verdict = capacityVerdict(pods, deployments, use);
    expect(verdict).toEqual({ reason, message: expect.stringContaining(words) });
  });

  test("reports a crash loop from the second restart on, until the program runs steadily", () => {
    const at = (agoMs: number) => new Date(NOW_MS - agoMs).toISOString();
    const ended = (exitCode: number, ranMs = 1_000) => ({
      terminated: { exitCode, startedAt: at(20_000 + ranMs), finishedAt: at(20_000) },
    });
    const crashed = ended(1);
    const said = (status: { state: ContainerState; lastState?: ContainerState; restartCount: number }) => {
      const pod = podOf("a");
      const worker = { name: "worker", ...status };
      return capacityVerdict([{ ...pod, status: { ...pod.status, containerStatuses: [worker] } }], [], NO_USE).reason;
    };
    const running = (agoMs: number) => ({ running: { startedAt: at(agoMs) } });
    expect(said({ state: crashed, restartCount: 0 })).toBe("Available");
    expect(said({ state: running(1_000), lastState: crashed, restartCount: 1 })).toBe("Available");
    expect(said({ state: crashed, lastState: crashed, restartCount: 2 })).toBe("PreparationFailing");
    expect(said({ state: running(1_000), lastState: crashed, restartCount: 2 })).toBe("PreparationFailing");
    expect(said({ state: running(61_000), lastState: crashed, restartCount: 2 })).toBe("Available");
    // An exit with 0 waits for its restart just as long.
    expect(said({ state: running(1_000), lastState: ended(0), restartCount: 9 })).toBe("PreparationFailing");
    // The kubelet restarts a program at once after more than ten minutes.
    expect(said({ state: running(1_000), lastState: ended(1, 600_000), restartCount: 9 })).toBe("Available");
    // A minute is no recovery if the previous run took two.
    expect(said({ state: running(61_000), lastState: ended(1, 120_000), restartCount: 2 })).toBe("PreparationFailing");
    expect(said({ state: running(241_000), lastState: ended(1, 120_000), restartCount: 2 })).toBe("Available");
  });

  test("reports a program that never started, although the runtime gives it the epoch as start", () => {
    const never = {
      exitCode: 128,
      reason: "StartError",
      startedAt: "1970-01-01T00:00:00Z",
      finishedAt: "2030-01-01T23:59:00Z",
    };
    const pod = podOf("a");
    const worker = { name: "worker", state: { terminated: never }, restartCount: 2 };
    const shown = { ...pod, status: { ...pod.status, containerStatuses: [worker] } };
    expect(capacityVerdict([shown], [], NO_USE).reason).toBe("PreparationFailing");
  });

  test("uses the same message while the container waits, runs briefly, or has just ended", () => {
    const terminated = {
      exitCode: 1,
      startedAt: "2030-01-01T23:59:00Z",
      finishedAt: "2030-01-01T23:59:01Z",
      message: "no such model\n",
    };
    const states: ContainerState[] = [
      { waiting: { reason: "CrashLoopBackOff", message: "back-off 10s restarting failed container=worker" } },
      { running: { startedAt: "2030-01-01T23:59:59Z" } },
      { terminated },
      { waiting: { reason: "CrashLoopBackOff", message: "back-off 20s restarting failed container=worker" } },
    ];
    const words = states.map((state) => {
      const pod = podOf("a");
      const worker = { name: "worker", state, lastState: { terminated }, restartCount: 2 };
      return capacityVerdict([{ ...pod, status: { ...pod.status, containerStatuses: [worker] } }], [], NO_USE);
    });
    expect(new Set(words.map(({ reason, message }) => `${reason} ${message}`)).size).toBe(1);
    expect(words[0]?.message).toContain("last with exit code 1: no such model; read the logs");
  });

  test("reports a crash loop of an init container until it completes", () => {
    const said = (exitCode: number) => {
      const pod = podOf("a", { ready: false, state: { waiting: { reason: "PodInitializing" } } });
      const setup = { name: "setup", state: { terminated: { exitCode } }, restartCount: 3 };
      return capacityVerdict([{ ...pod, status: { ...pod.status, initContainerStatuses: [setup] } }], [], NO_USE)
        .reason;
    };
    expect(said(1)).toBe("PreparationFailing");
    expect(said(0)).toBe("Available");
  });

  test("ignores a Pod that is being deleted", () => {
    const pod = podOf("a", { ending: true, state: { waiting: { reason: "ImagePullBackOff" } } });
    expect(capacityVerdict([pod], [], NO_USE).reason).toBe("Available");
  });

  test("uses the same message for each Pod of a Deployment", () => {
    const uid = "5f0c3b8a-9c4e-4b0e-8b1f-2d9f7f6f0a11";
    const of = (name: string) => {
      const message = `failed to create container=worker pod=${name}_agents(${uid})`;
      return capacityVerdict([waiting("CreateContainerError", message)], [], NO_USE).message;
    };
    expect(of("berth-research-1-abcde")).toBe(of("berth-research-1-fghij"));
  });
});

describe("the verdict on scaling", () => {
  const clock = new VirtualClock();
  const decision = (over: Partial<NonNullable<ScalerView["decision"]>> = {}) => ({
    replicas: 2,
    wanted: 2,
    reason: "DesiredWithinRange" as const,
    message: "the demand asks for 2",
    ...over,
  });
  const view = (over: Partial<ScalerView> = {}): ScalerView => ({
    decision: decision(),
    silent: 0,
    held: null,
    failure: null,
    ...over,
  });
  const readings = { queue: { depth: 0, pending: 0, readMs: 0 }, running: { running: 0, readMs: 1_000 } };
  const reasonOf = (of: ScalerView, blockedReason: string | null = null) =>
    scalingVerdict(of, readings, { blockedReason, clock }).reason;

  test.each<[string, ScalerView, string]>([
    ["scaling follows the demand", view(), "ScalingFollowsDemand"],
    ["no decision so far", view({ decision: null }), "DemandUnread"],
    ["no readings so far", view({ decision: decision({ reason: "DemandUnknown", wanted: null }) }), "DemandUnread"],
    ["old readings", view({ decision: decision({ reason: "DemandStale", wanted: null }) }), "ReadingStale"],
    ["a failed write", view({ failure: "deployments is forbidden" }), "ScalingFailed"],
    ["workers that could not be removed", view({ held: "1 worker is busy" }), "ScaleDownHeld"],
    ["running sessions", view({ decision: decision({ reason: "SessionsRunning", wanted: 0 }) }), "ScaleDownHeld"],
    [
      "running sessions with as many workers wanted",
      view({ decision: decision({ reason: "SessionsRunning" }) }),
      "ScalingFollowsDemand",
    ],
    [
      "busy workers that stay",
      view({ decision: decision({ reason: "WorkersBusy", wanted: 0 }) }),
      "ScalingFollowsDemand",
    ],
    [
      "workers that do not answer",
      view({ silent: 1, decision: decision({ reason: "WorkersBusy", wanted: 0 }) }),
      "ScaleDownHeld",
    ],
  ])("%s", (_what, of, reason) => {
    expect(reasonOf(of)).toBe(reason);
  });

  test("reports a list without an end as such", () => {
    const unknown = view({ decision: decision({ reason: "DemandUnknown", wanted: null }) });
    expect(scalingVerdict(unknown, readings, { blockedReason: "the list did not end", clock })).toEqual({
      reason: "ReadingStale",
      message: "the list did not end; the number of workers does not change",
    });
  });

  test("does not change its message while only time passes", async () => {
    const stale = view({ decision: decision({ reason: "DemandStale", wanted: null }) });
    const say = () => scalingVerdict(stale, readings, { blockedReason: null, clock }).message;
    const before = say();
    await clock.advance(200_000);
    expect(say()).toBe(before);
    expect(before).toMatch(/^the queue's statistics were last read at \d{4}-\d\d-\d\dT\d\d:\d\dZ;/);
  });
});
