import { describe, expect, test } from "vitest";
import type { ContainerState, Pod } from "../../src/kube/resource.ts";
import {
  type EndCause,
  NEEDS_SHELL,
  NEEDS_TOOLS,
  readPodState,
  runningContainerName,
  stateOf,
} from "../../src/pods/pod-state.ts";
import { isTrue, PREPARED, SESSION, waitingFor } from "./pods.ts";
import { type TurnsPod, turnsPod } from "./turn-pods.ts";

const STARTED = "2030-01-01T00:00:00Z";
const ASSIGNED = "2030-01-01T01:00:00Z";
const FINISHED = "2030-01-01T01:30:00Z";
const RUNNING: ContainerState = { running: { startedAt: STARTED } };
const exited = (exitCode: number, more: Record<string, unknown> = {}): ContainerState => ({
  terminated: { exitCode, reason: "Error", startedAt: STARTED, finishedAt: FINISHED, ...more },
});
const assigned = (of: TurnsPod) =>
  turnsPod({ ...of, phase: "running", annotations: { "berth.dev/assigned-at": ASSIGNED, ...of.annotations } });
const asleep = (of: TurnsPod) =>
  turnsPod({
    ...{ ended: 1, ...of, phase: "sleeping" },
    annotations: { "berth.dev/assigned-at": ASSIGNED, ...of.annotations },
  });
const endOf = (of: Pod, turn?: number) => {
  const state = readPodState(of, turn);
  return state.is === "ended" ? state.end : state;
};

describe("a Pod with turns", () => {
  test("is parked while a turn waits beside its keeper", () => {
    expect(readPodState(turnsPod({ turns: { 1: RUNNING } }))).toEqual({ is: "parked" });
    expect(readPodState(asleep({ turns: { 1: exited(0), 2: RUNNING } }))).toEqual({ is: "parked" });
    expect(readPodState(asleep({ ended: 1, turns: { 1: exited(0), 2: exited(143), 3: RUNNING } })).is).toBe("parked");
  });

  test("runs its session from the time at which its turn was assigned", () => {
    const running = { is: "running", startedAtMs: Date.parse(ASSIGNED) };
    expect(readPodState(assigned({ turns: { 1: RUNNING } }))).toEqual(running);
    expect(readPodState(assigned({ ended: 1, turns: { 1: exited(0), 2: RUNNING } }))).toEqual(running);
  });

  test.each<[string, TurnsPod]>([
    ["no turn was added yet", {}],
    ["the kubelet has not reported its turn", { turns: { 1: undefined } }],
    ["its turn is created", { turns: { 1: waitingFor("", "ContainerCreating") } }],
    ["its keeper is created", { turns: { 1: RUNNING }, keeper: waitingFor("", "PodInitializing") }],
    ["its sandbox is not ready", { turns: { 1: RUNNING }, status: { conditions: [isTrue("PodScheduled")] } }],
    [
      "the runtime is away",
      { turns: { 1: waitingFor("rpc error: code = Unavailable desc = x", "CreateContainerError") } },
    ],
  ])("is prepared while %s", (_, of) => {
    expect(readPodState(turnsPod(of))).toEqual({ is: "preparing", problem: null });
  });

  test("is prepared again while its session sleeps and the next turn is added", () => {
    expect(readPodState(asleep({ turns: { 1: exited(0) } }))).toEqual({ is: "preparing", problem: null });
  });

  test.each<[string, TurnsPod]>([
    ["its keeper", { keeper: waitingFor("no such image", "ErrImagePull") }],
    ["its turn", { turns: { 1: waitingFor("no such image", "ErrImagePull") } }],
  ])("reports what keeps %s from starting", (_, of) => {
    const problem = { reason: "ErrImagePull", message: "no such image" };
    expect(readPodState(turnsPod(of))).toEqual({ is: "preparing", problem });
  });

  test("is unscheduled without a node", () => {
    const of = turnsPod({ status: { conditions: [], containerStatuses: [] } });
    expect(readPodState({ ...of, spec: { containers: [] } })).toMatchObject({ is: "unscheduled" });
  });

  test("runs its session in its newest turn, and is read again after each change", () => {
    const waiting = turnsPod({ turns: { 1: RUNNING } });
    expect(stateOf(waiting)).toBe(stateOf(waiting));
    expect(stateOf(assigned({ turns: { 1: RUNNING } })).is).toBe("running");
    expect(runningContainerName(turnsPod({ turns: { 2: RUNNING, 10: RUNNING } }))).toBe("berth-turn-10");
  });
});

describe("the end of a turn", () => {
  test.each<[number, EndCause]>([
    [0, "Completed"],
    [1, "Failed"],
    [137, "Killed"],
  ])("with exit code %i ends its session as %s", (exitCode, cause) => {
    expect(endOf(assigned({ turns: { 1: exited(exitCode) } }))).toMatchObject({
      ...{ cause, exitCode, startedAtMs: Date.parse(ASSIGNED), finishedAtMs: Date.parse(FINISHED) },
    });
  });

  test("is found although a restarted kubelet says that it waits", () => {
    const of = assigned({ turns: { 1: waitingFor("", "ContainerCreating") } });
    const [turn] = of.status?.ephemeralContainerStatuses ?? [];
    const status = {
      ...of.status,
      ephemeralContainerStatuses: [{ ...turn, name: "berth-turn-1", lastState: exited(1) }],
    };
    expect(endOf({ ...of, status })).toMatchObject({ cause: "Failed", exitCode: 1 });
  });

  test("before it was claimed is a failed start", () => {
    expect(endOf(turnsPod({ turns: { 1: exited(127) } }))).toMatchObject({
      ...{ cause: "StartFailed", startedAtMs: null },
      message:
        "the program is not in the image; correct the command of container worker in spec.sessions.template, or the image",
    });
  });

  test("is that of the claim's own turn, whatever the next one does", () => {
    const sleeping = asleep({ turns: { 1: exited(1, { message: "out of disk" }), 2: RUNNING } });
    expect(endOf(sleeping, 1)).toMatchObject({
      ...{ cause: "Failed", exitCode: 1, message: "the container ended with exit code 1: out of disk" },
      ...{ startedAtMs: Date.parse(ASSIGNED), finishedAtMs: Date.parse(FINISHED) },
    });
    expect(readPodState(sleeping, 2)).toEqual({ is: "parked" });
  });

  test("that is on record is no failed start, and no deletion of its Pod", () => {
    expect(endOf(asleep({ turns: { 1: exited(127), 2: RUNNING } }), 1)).toMatchObject({ cause: "Failed" });
    const deleted = { deletionTimestamp: FINISHED, deletionGracePeriodSeconds: 30 };
    const of = asleep({ turns: { 1: exited(0), 2: RUNNING }, annotations: {} });
    expect(endOf({ ...of, metadata: { ...of.metadata, ...deleted } }, 1)).toMatchObject({ cause: "Completed" });
    expect(endOf(asleep({ turns: { 1: exited(137, { reason: "OOMKilled" }) } }), 1)).toMatchObject({
      ...{ cause: "OOMKilled", message: "the container used more memory than its limit" },
    });
  });

  test.each<[string, TurnsPod]>([
    ["its kubelet has lost the container", { turns: { 2: RUNNING } }],
    ["it runs again", { turns: { 1: RUNNING, 2: RUNNING } }],
    ["its keeper has ended", { turns: { 2: RUNNING }, keeper: exited(4) }],
  ])("stays on record when %s", (_, of) => {
    expect(endOf(asleep(of), 1)).toMatchObject({ cause: "Completed", exitCode: null, finishedAtMs: null });
  });

  test("is unknown if its node started another container for it", () => {
    const rerun = (id: string) =>
      assigned({ ended: 1, turns: { 2: RUNNING }, ids: { 2: id }, claimedIn: "containerd://claimed" });
    expect(readPodState(rerun("containerd://claimed")).is).toBe("running");
    expect(endOf(rerun("containerd://another"))).toMatchObject({
      ...{ cause: "NodeLost", exitCode: null, startedAtMs: null },
      message: expect.stringContaining("its node lost its record"),
    });
  });

  test("is unknown if its Pod failed without a report, or its node is lost", () => {
    for (const status of [{ phase: "Failed" }, { phase: "Unknown" }, { reason: "NodeLost" }]) {
      expect(endOf(assigned({ turns: { 1: RUNNING }, status }))).toMatchObject({ cause: "NodeLost", exitCode: null });
    }
    const never = turnsPod({ status: { phase: "Failed", message: "no room" } });
    expect(endOf(never)).toMatchObject({ cause: "StartFailed", message: "no room" });
  });
});

describe("the end of a keeper", () => {
  const kept = (of: TurnsPod, keeper: ContainerState) => endOf(assigned({ turns: { 1: RUNNING }, ...of, keeper }));
  const waits = (keeper: ContainerState) => endOf(turnsPod({ turns: { 1: RUNNING }, keeper }));

  test("at the Pod's deadline ends its session", () => {
    expect(kept({}, exited(4))).toMatchObject({
      ...{ cause: "DeadlineExceeded", exitCode: 4 },
      message: "the Pod's deadline passed before an operator ended it",
    });
    expect(endOf(asleep({ turns: { 1: exited(0), 2: RUNNING }, keeper: exited(4) }))).toMatchObject({
      cause: "DeadlineExceeded",
    });
  });

  test("is found although a restarted kubelet says that it waits", () => {
    const of = assigned({ turns: { 1: RUNNING } });
    const keeper = { name: SESSION, state: waitingFor("", "ContainerCreating"), lastState: exited(4) };
    expect(endOf({ ...of, status: { ...of.status, containerStatuses: [keeper] } })).toMatchObject({
      cause: "DeadlineExceeded",
    });
  });

  test("in an image without its tools is a failed start, and says what to add", () => {
    expect(waits(exited(127))).toMatchObject({
      ...{ cause: "StartFailed", exitCode: 127 },
      message: `the keeper container could not run; ${NEEDS_TOOLS}`,
    });
  });

  test("by another cause is a failed start of a free Pod, and kills a session", () => {
    const message = "the keeper container ended with exit code 1";
    expect(waits(exited(1))).toMatchObject({ cause: "StartFailed", message });
    expect(kept({}, exited(1))).toMatchObject({ cause: "Killed", message });
    expect(kept({}, exited(127))).toMatchObject({ cause: "Killed" });
  });

  test.each<[string, TurnsPod, ContainerState, EndCause]>([
    ["evicted", { status: { reason: "Evicted" } }, exited(137), "Evicted"],
    [
      "preempted",
      { status: { conditions: [...PREPARED, { ...isTrue("DisruptionTarget"), reason: "PreemptionByScheduler" }] } },
      exited(143),
      "Preempted",
    ],
    ["past activeDeadlineSeconds", { status: { reason: "DeadlineExceeded" } }, exited(137), "DeadlineExceeded"],
    ["of a restarted node", {}, exited(255, { reason: "Unknown" }), "NodeLost"],
    [
      "deleted",
      { metadata: { deletionTimestamp: FINISHED, deletionGracePeriodSeconds: 30 } },
      exited(143),
      "PodDeleted",
    ],
  ])("does not hide that its Pod is %s", (_, { metadata = {}, ...of }, keeper, cause) => {
    const whole = assigned({ turns: { 1: RUNNING }, ...of, keeper });
    expect(endOf({ ...whole, metadata: { ...whole.metadata, ...metadata } })).toMatchObject({ cause });
  });

  test("reports a shell that could not be started", () => {
    const message = 'exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown';
    expect(waits(exited(128, { reason: "StartError", message }))).toMatchObject({
      ...{ cause: "StartFailed", message: expect.stringContaining(message), startedAtMs: null },
    });
  });

  test("without a shell in the image says what sleeping needs, where the program itself needs none", () => {
    const message = 'exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown';
    const keeper = exited(128, { reason: "StartError", message });
    const fixOf = (parking: string) => {
      const end = endOf(turnsPod({ annotations: { "berth.dev/parking": parking }, keeper }));
      return [NEEDS_SHELL, NEEDS_TOOLS].filter((fix) => "message" in end && end.message.endsWith(fix));
    };
    expect([fixOf("Shell"), fixOf("Program")]).toEqual([[NEEDS_SHELL], [NEEDS_TOOLS]]);
  });

  test("does not hide how its turn ended before it", () => {
    const later = exited(4, { finishedAt: "2030-01-01T01:30:01Z" });
    expect(kept({ turns: { 1: exited(0) } }, later)).toMatchObject({ cause: "Completed", exitCode: 0 });
    expect(kept({ turns: { 1: exited(0) } }, exited(1))).toMatchObject({ cause: "Completed" });
  });

  test("at the deadline is how its turn ended, although that handles SIGTERM and exits on its own", () => {
    expect(kept({ turns: { 1: exited(0) } }, exited(4))).toMatchObject({ cause: "DeadlineExceeded", exitCode: 0 });
    expect(kept({ turns: { 1: exited(143) }, status: { reason: "Evicted" } }, exited(4))).toMatchObject({
      cause: "Evicted",
    });
  });
});
