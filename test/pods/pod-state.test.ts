import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Pod, PodStatus } from "../../src/kube/resource.ts";
import { type EndCause, NEEDS_SHELL, type PodState, readPodState } from "../../src/pods/pod-state.ts";
import { RECORDED_NAMES } from "../testbed/node/recorded.ts";
import {
  containerStatus,
  isTrue,
  MISSING_KEY,
  MISSING_SECRET,
  PREPARED,
  pod,
  recordedPod,
  SESSION,
  waitingFor,
} from "./pods.ts";

/** `ended: cause` for an end, `preparing: reason` for a problem, and only the state's name for all others. */
function summaryOf(state: PodState): string {
  if (state.is === "ended") return `ended: ${state.end.cause}`;
  if (state.is === "preparing" && state.problem) return `preparing: ${state.problem.reason}`;
  if (state.is === "unscheduled") return `unscheduled: ${state.reason}`;
  return state.is;
}

test("counts a container as ended even if a restarted kubelet says that it waits", () => {
  const terminated = { exitCode: 1, startedAt: "2030-01-01T00:00:00Z" };
  const back = { ...containerStatus(SESSION, waitingFor("", "ContainerCreating")), lastState: { terminated } };
  expect(summaryOf(readPodState(pod({ containerStatuses: [back] })))).toBe("ended: Failed");
});

describe("recorded by a real kubelet", () => {
  const EXPECTED: Record<string, string> = {
    "active-deadline-exceeded": "ended: DeadlineExceeded",
    "completed-container-phase-still-running": "ended: Completed",
    "create-container-config-error": "parked",
    "create-container-config-error-key": "parked",
    "create-container-config-error-root": "preparing: CreateContainerConfigError",
    "deleted-exit-143": "ended: PodDeleted",
    "deleted-last-seen-exit-0": "ended: Completed",
    "deleted-sigterm-handled-exit-0": "ended: PodDeleted",
    "deleting-running": "running",
    "err-image-never-pull": "preparing: ErrImageNeverPull",
    "err-image-pull": "preparing: ErrImagePull",
    "evicted-by-api": "running",
    "evicted-emptydir-size": "ended: Evicted",
    "evicted-ephemeral-storage": "ended: Evicted",
    "exit-1": "ended: Failed",
    "exit-1-message-from-log": "ended: Failed",
    "image-pull-back-off": "preparing: ImagePullBackOff",
    "init-container-failed": "ended: StartFailed",
    "init-container-running": "preparing",
    "invalid-image-name": "preparing: InvalidImageName",
    "oom-child-killed": "ended: OOMKilled",
    "oom-in-child-worker-survives": "ended: Completed",
    "oom-killed": "ended: OOMKilled",
    preempted: "running",
    "run-container-error": "ended: StartFailed",
    running: "running",
    // Without the gates of its spec, which are not recorded.
    "scheduling-gated": "unscheduled: ",
    "second-container-keeps-pod-running": "ended: Completed",
    "sidecar-crash-loop": "running",
    "sidecar-ignores-sigterm": "ended: Completed",
    "sidecar-main-done": "ended: Completed",
    "sidecar-running": "running",
    "sidecar-succeeded": "ended: Completed",
    "sigterm-ignored-exit-137": "ended: PodDeleted",
    "sigterm-ignored-last-seen": "ended: Killed",
    "start-error-failed": "ended: StartFailed",
    succeeded: "ended: Completed",
    "unschedulable-cpu": "unscheduled: Unschedulable",
    "unschedulable-node-selector": "unscheduled: Unschedulable",
  };

  test.each(RECORDED_NAMES)("%s", (name) => {
    expect(summaryOf(readPodState(recordedPod(name)))).toBe(EXPECTED[name]);
  });

  test("covers exactly the existing recordings", () => {
    expect(Object.keys(EXPECTED).sort()).toEqual([...RECORDED_NAMES].sort());
  });

  test("reports the container's own times, exit code and last message", () => {
    expect(readPodState(recordedPod("exit-1"))).toEqual({
      is: "ended",
      end: {
        cause: "Failed",
        exitCode: 1,
        message: "the container ended with exit code 1: no session token",
        startedAtMs: Date.UTC(2026, 10, 25, 9, 47, 16),
        finishedAtMs: Date.UTC(2026, 10, 25, 9, 47, 16),
      },
    });
  });

  test("reports the kubelet's message and no start time for a container that could not start", () => {
    expect(readPodState(recordedPod("start-error-failed"))).toMatchObject({
      end: { startedAtMs: null, message: expect.stringContaining("/no/such/binary") },
    });
  });

  test("reports the scheduler's message for a Pod without a node", () => {
    expect(readPodState(recordedPod("unschedulable-cpu"))).toMatchObject({
      message: expect.stringContaining("Insufficient cpu"),
    });
  });

  test("names the scheduling gates of a Pod, until they are removed, whatever its conditions still say", () => {
    const conditions = [{ type: "PodScheduled", status: "False", reason: "SchedulingGated", message: "blocked" }];
    const waiting = pod({ phase: "Pending", conditions });
    delete waiting.spec.nodeName;
    const gates = [{ name: "kueue.x-k8s.io/admission" }, { name: "kueue.x-k8s.io/topology" }];
    expect(readPodState({ ...waiting, spec: { ...waiting.spec, schedulingGates: gates } })).toEqual({
      is: "gated",
      message: "waits for its scheduling gates (kueue.x-k8s.io/admission, kueue.x-k8s.io/topology)",
    });
    const admitted = { ...waiting, spec: { ...waiting.spec, schedulingGates: [] } };
    expect(readPodState(admitted)).toEqual({ is: "unscheduled", reason: "", message: "" });
  });

  test("reports name, exit code and last message of a failed init container", () => {
    expect(readPodState(recordedPod("init-container-failed"))).toMatchObject({
      end: { message: "init container prep ended with 3: bad config" },
    });
  });
});

describe("parked", () => {
  const parkedBy = (message: string) =>
    summaryOf(readPodState(pod({ containerStatuses: [containerStatus(SESSION, waitingFor(message))] })));

  test.each([
    ["no Secret yet", MISSING_SECRET, "parked"],
    // A kubelet configured to read from the API server repeats that server's message: "secrets", not "secret".
    ["no Secret yet, in the API server's words", 'secrets "berth-research-x" not found', "parked"],
    ["a Secret without the key", MISSING_KEY, "parked"],
    ["another Secret is missing", 'secret "other" not found', "preparing: CreateContainerConfigError"],
    [
      "a Secret whose name ends like ours",
      'secret "not-berth-research-x" not found',
      "preparing: CreateContainerConfigError",
    ],
    [
      "a key of another Secret is missing",
      "couldn't find key a in Secret agents/other",
      "preparing: CreateContainerConfigError",
    ],
    [
      "a Secret of our name in another namespace",
      "couldn't find key a in Secret other/berth-research-x",
      "preparing: CreateContainerConfigError",
    ],
    ["a ConfigMap of our name", 'configmap "berth-research-x" not found', "preparing: CreateContainerConfigError"],
    ["no reason at all", "", "preparing: CreateContainerConfigError"],
    // The kubelet lost its API server for a moment: it retries in some seconds, and the Pod is fine.
    ["the kubelet could not read it", "failed to sync secret cache: timed out waiting for the condition", "preparing"],
  ])("%s", (_, message, expected) => expect(parkedBy(message)).toBe(expected));

  const AWAY = 'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing"';

  // containerd 2.2 restarts: the kubelet's messages for a container that just got its session.
  test.each([
    ["ImageInspectError", `Failed to inspect image "": ${AWAY}`, "preparing"],
    ["CreateContainerError", AWAY, "preparing"],
    // A registry that does not answer.
    ["ErrImagePull", `failed to pull and unpack image "x": ${AWAY}`, "preparing: ErrImagePull"],
    ["CreateContainerError", "rpc error: code = Unknown desc = no such device", "preparing: CreateContainerError"],
  ])("ignores %s while the container runtime is away: %s", (reason, message, expected) => {
    const containerStatuses = [containerStatus(SESSION, waitingFor(message, reason))];
    expect(summaryOf(readPodState(pod({ containerStatuses })))).toBe(expected);
  });

  test.each([
    ["the sandbox is not ready", "PodReadyToStartContainers"],
    ["an init container still runs", "Initialized"],
  ])("is not reached while %s", (_, missing) => {
    expect(summaryOf(readPodState(pod({ conditions: PREPARED.filter(({ type }) => type !== missing) })))).toBe(
      "preparing",
    );
  });

  test("is not held up by what kubelets say of each Pod without a sandbox, since 1.37", () => {
    const missing = { type: "PodReadyToStartContainers", status: "False", reason: "PodSandboxNotReady" };
    const none = { ...missing, message: "no pod sandbox exists" };
    const conditions = [...PREPARED.filter(({ type }) => type !== missing.type), none];
    const containerStatuses = [containerStatus(SESSION, waitingFor("", "ContainerCreating"))];
    expect(summaryOf(readPodState(pod({ conditions, containerStatuses })))).toBe("preparing");
  });

  test("does not mistake an injected first sidecar for the session container", () => {
    const containerStatuses = [
      containerStatus("istio-proxy", { running: { startedAt: "2026-01-01T00:00:00Z" } }),
      containerStatus(SESSION, waitingFor(MISSING_KEY)),
    ];
    expect(readPodState(pod({ containerStatuses })).is).toBe("parked");
  });

  test("uses the first container of the spec, not of the status, if the Pod names none", () => {
    const containerStatuses = [
      containerStatus("aa-second", { running: { startedAt: "2026-01-01T00:00:00Z" } }),
      containerStatus(SESSION, waitingFor(MISSING_KEY)),
    ];
    const silent = pod(
      { containerStatuses },
      { metadata: { annotations: {} }, spec: { containers: [{ name: SESSION }, { name: "aa-second" }] } },
    );
    expect(readPodState(silent).is).toBe("parked");
  });

  test("ignores a sidecar that crashes while the Pod is parked", () => {
    const initContainerStatuses = [containerStatus("proxy", waitingFor("back-off", "CrashLoopBackOff"))];
    expect(readPodState(pod({ initContainerStatuses })).is).toBe("parked");
  });

  test("ignores a sidecar that crashes while the session container is being created", () => {
    const creating = pod({
      initContainerStatuses: [containerStatus("proxy", waitingFor("back-off", "CrashLoopBackOff"))],
      containerStatuses: [containerStatus(SESSION, waitingFor("", "ContainerCreating"))],
    });
    expect(readPodState(creating)).toEqual({ is: "preparing", problem: null });
  });

  test("reports an init container whose image can't be pulled as the problem of an unparked Pod", () => {
    const stuck = pod({
      conditions: [isTrue("PodScheduled"), isTrue("PodReadyToStartContainers")],
      initContainerStatuses: [containerStatus("prep", waitingFor("no such image", "ErrImagePull"))],
      containerStatuses: [containerStatus(SESSION, waitingFor("", "PodInitializing"))],
    });
    expect(readPodState(stuck)).toEqual({
      is: "preparing",
      problem: { reason: "ErrImagePull", message: "init container prep: no such image" },
    });
  });

  test("is unscheduled without a node, and has no message before the scheduler's first try", () => {
    const { status } = pod();
    const fresh: Pod = { metadata: {}, spec: { containers: [] }, status: { ...status, conditions: [] } };
    expect(readPodState(fresh)).toEqual({ is: "unscheduled", reason: "", message: "" });
  });

  test("still reports the container's state while the Pod terminates", () => {
    const going = pod(
      {},
      { metadata: { name: "berth-research-x", namespace: "agents", deletionTimestamp: "2026-01-01T00:00:00Z" } },
    );
    expect(readPodState({ ...going, metadata: { ...pod().metadata, ...going.metadata } }).is).toBe("parked");
  });
});

describe("a container that waits for its session's line", () => {
  const STARTED = "2026-01-01T00:00:00Z";
  const ASSIGNED = "2026-01-01T01:00:00Z";
  const FINISHED = "2026-01-01T01:30:00Z";
  /** A Pod that waits in a shell, with `status` on top of a running one's. */
  const waiting = (status: PodStatus = {}, annotations: Record<string, string> = {}, metadata: Pod["metadata"] = {}) =>
    pod(
      {
        phase: "Running",
        containerStatuses: [containerStatus(SESSION, { running: { startedAt: STARTED } })],
        ...status,
      },
      {
        metadata: {
          name: "berth-research-x",
          namespace: "agents",
          ...metadata,
          annotations: { "berth.dev/session-container": SESSION, "berth.dev/parking": "Shell", ...annotations },
        },
      },
    );
  const assigned = (status: PodStatus = {}) => waiting(status, { "berth.dev/assigned-at": ASSIGNED });
  const terminated = (exitCode: number, more: Record<string, unknown> = {}): PodStatus => ({
    containerStatuses: [
      containerStatus(SESSION, {
        terminated: { exitCode, reason: "Error", startedAt: STARTED, finishedAt: FINISHED, ...more },
      }),
    ],
  });
  const endOf = (of: Pod) => {
    const state = readPodState(of);
    return state.is === "ended" ? state.end : state;
  };

  test("is parked while it runs, and its session runs from the time at which it was assigned", () => {
    expect(readPodState(waiting())).toEqual({ is: "parked" });
    expect(readPodState(waiting({}, { "berth.dev/parking": "Program" }))).toEqual({ is: "parked" });
    expect(readPodState(assigned())).toEqual({ is: "running", startedAtMs: Date.parse(ASSIGNED) });
  });

  test.each(["", "yesterday"])("is parked although its Pod says that it was assigned at %j", (at) => {
    expect(readPodState(waiting({}, { "berth.dev/assigned-at": at }))).toEqual({ is: "parked" });
  });

  test("is only prepared before its container runs", () => {
    const containerStatuses = [containerStatus(SESSION, waitingFor("", "ContainerCreating"))];
    expect(summaryOf(readPodState(waiting({ containerStatuses })))).toBe("preparing");
    const failing = [containerStatus(SESSION, waitingFor("no such volume", "CreateContainerError"))];
    expect(summaryOf(readPodState(waiting({ containerStatuses: failing })))).toBe("preparing: CreateContainerError");
  });

  test("of a Pod that waits for a key runs its session, whatever the annotation of assignment says", () => {
    const byKey = waiting({}, { "berth.dev/parking": "Key", "berth.dev/assigned-at": ASSIGNED });
    expect(readPodState(byKey)).toEqual({ is: "running", startedAtMs: Date.parse(STARTED) });
  });

  test.each([
    [
      127,
      "the program is not in the image; correct the command of container worker in spec.sessions.template, or the image",
    ],
    [75, "the container ended with exit code 75 while it waited for a session"],
    [143, "the container ended with exit code 143 while it waited for a session"],
    [0, "the container ended with exit code 0 while it waited for a session"],
  ])("is a failed start without a session if it ends with %i", (exitCode, message) => {
    expect(endOf(waiting(terminated(exitCode)))).toEqual({
      ...{ cause: "StartFailed", exitCode, message },
      ...{ startedAtMs: null, finishedAtMs: Date.parse(FINISHED) },
    });
  });

  test("names the program that is not in the image, if the shell's output is known", () => {
    const message = "agent: not found in the image, or not executable\n";
    expect(endOf(waiting(terminated(127, { message })))).toMatchObject({
      message:
        "agent: not found in the image, or not executable; correct the command of container worker in spec.sessions.template, or the image",
    });
  });

  test("reports the last whole lines of a program's output, at most 400 characters", () => {
    const lines = Array.from({ length: 100 }, (_, n) => `line ${n} of the trace`);
    const end = endOf(assigned(terminated(1, { message: `${lines.join("\n")}\nno such model\n` })));
    const said = "message" in end ? end.message : "";
    expect(said).toMatch(/^the container ended with exit code 1: \.\.\.line \d+ of the trace\n(.*\n)*no such model$/);
    expect(said.length).toBeLessThan(450);
  });

  test("reports the last message of a program that ends before it has a session", () => {
    const ended = waiting(terminated(1, { message: "no configuration\n" }), { "berth.dev/parking": "Program" });
    expect(endOf(ended)).toMatchObject({
      cause: "StartFailed",
      message: "the container ended with exit code 1 while it waited for a session: no configuration",
    });
    expect(endOf(waiting(terminated(127), { "berth.dev/parking": "Program" }))).toMatchObject({
      message: "the container ended with exit code 127 while it waited for a session",
    });
  });

  test.each<[number, EndCause]>([
    [0, "Completed"],
    [1, "Failed"],
    [127, "Failed"],
    [137, "Killed"],
  ])("ends its session with %i like any other container once it is assigned", (exitCode, cause) => {
    expect(endOf(assigned(terminated(exitCode)))).toMatchObject({
      ...{ cause, exitCode, startedAtMs: Date.parse(ASSIGNED), finishedAtMs: Date.parse(FINISHED) },
    });
  });

  test.each([
    ["containerd", 'exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown', "StartError"],
    ["CRI-O", "executable file `/bin/sh` not found in $PATH", "ContainerCannotRun"],
  ])("names the fix for an image without a shell, from %s", (_, message, reason) => {
    const ended = endOf(waiting(terminated(128, { reason, message, startedAt: "1970-01-01T00:00:00Z" })));
    expect(ended).toMatchObject({ cause: "StartFailed", message: `${message}; ${NEEDS_SHELL}`, startedAtMs: null });
  });

  test("names another fault of its start without a fix for the image", () => {
    const message = "mkdir /sys/x: read-only file system";
    expect(endOf(waiting(terminated(128, { reason: "StartError", message })))).toMatchObject({ message });
    const inKey = waiting(terminated(128, { reason: "StartError", message: "/bin/sh" }), {
      "berth.dev/parking": "Key",
    });
    expect(endOf(inKey)).toMatchObject({ message: "/bin/sh" });
  });

  test("is evicted, deleted or lost, not failed, although it ends with an error", () => {
    const conditions = [...PREPARED, { ...isTrue("DisruptionTarget"), reason: "EvictionByEvictionAPI" }];
    expect(endOf(waiting({ ...terminated(143), conditions }))).toMatchObject({ cause: "Evicted", startedAtMs: null });
    const deletion = { deletionTimestamp: "2026-01-01T01:30:10Z", deletionGracePeriodSeconds: 30 };
    expect(endOf(waiting(terminated(143), {}, deletion))).toMatchObject({
      cause: "PodDeleted",
      message: "the Pod was deleted while it waited for a session; the container ended with exit code 143",
      startedAtMs: null,
    });
    // Its node was started again.
    expect(endOf(waiting(terminated(255, { reason: "Unknown" })))).toMatchObject({
      ...{ cause: "NodeLost", exitCode: null, startedAtMs: null },
    });
  });

  test("has served no session if its Pod failed without a report of its end", () => {
    expect(endOf(waiting({ phase: "Failed" }))).toMatchObject({ cause: "NodeLost", startedAtMs: null });
    expect(endOf(assigned({ phase: "Failed" }))).toMatchObject({
      ...{ cause: "NodeLost", startedAtMs: Date.parse(ASSIGNED) },
    });
  });
});

describe("ends", () => {
  const terminated = (more: Record<string, unknown> = {}) =>
    containerStatus(SESSION, {
      terminated: {
        exitCode: 137,
        reason: "Error",
        startedAt: "2026-01-01T00:00:00Z",
        finishedAt: "2026-01-01T00:00:10Z",
        ...more,
      },
    });
  const target = (reason: string) => ({ type: "DisruptionTarget", status: "True", reason, message: `by ${reason}` });

  test.each<[string, string, EndCause]>([
    ["evicted through the API", "EvictionByEvictionAPI", "Evicted"],
    ["evicted by its node", "TerminationByKubelet", "Evicted"],
    ["preempted", "PreemptionByScheduler", "Preempted"],
    ["evicted from a tainted node that reports the end", "DeletionByTaintManager", "Evicted"],
    ["collected after its node was removed", "DeletionByPodGC", "NodeLost"],
  ])("is found for a running Pod that was %s", (_, reason, cause) => {
    const conditions = [...PREPARED, target(reason)];
    const state = readPodState(pod({ phase: "Failed", conditions, containerStatuses: [terminated()] }));
    expect(state).toMatchObject({ is: "ended", end: { cause, exitCode: 137, message: `by ${reason}` } });
  });

  test.each<[string, string, EndCause]>([
    ["evicted", "TerminationByKubelet", "Evicted"],
    ["preempted", "PreemptionByScheduler", "Preempted"],
    ["lost with its node", "DeletionByPodGC", "NodeLost"],
  ])("is found for a parked Pod that was %s", (_, reason, cause) => {
    expect(readPodState(pod({ phase: "Failed", conditions: [...PREPARED, target(reason)] }))).toMatchObject({
      end: { cause, exitCode: null },
    });
  });

  test("is NodeLost when evicted from an unresponsive node without a reported end", () => {
    const unseen = terminated({ reason: "ContainerStatusUnknown", startedAt: null, finishedAt: null });
    const conditions = [...PREPARED, target("DeletionByTaintManager")];
    expect(readPodState(pod({ conditions, containerStatuses: [unseen] }))).toMatchObject({
      end: { cause: "NodeLost" },
    });
  });

  test.each<[string, string, string, EndCause]>([
    ["long before its eviction", "EvictionByEvictionAPI", "2026-01-01T00:05:00Z", "Killed"],
    ["while its node's clock is slightly behind", "EvictionByEvictionAPI", "2026-01-01T00:00:15Z", "Evicted"],
    ["at an unknown time", "EvictionByEvictionAPI", "", "Evicted"],
    ["by its kubelet, which reports it later", "TerminationByKubelet", "2026-01-01T00:05:00Z", "Evicted"],
  ])("is found for a container that ended %s", (_, reason, lastTransitionTime, cause) => {
    const conditions = [...PREPARED, { ...target(reason), lastTransitionTime }];
    expect(readPodState(pod({ conditions, containerStatuses: [terminated()] }))).toMatchObject({ end: { cause } });
  });

  test("does not blame the template for a deletion before the session container started", () => {
    const prepared = containerStatus("prep", { terminated: { exitCode: 143, reason: "Error" } });
    const deletionTimestamp = "2026-01-01T00:00:00Z";
    const state = readPodState(
      pod({ phase: "Failed", initContainerStatuses: [prepared] }, { metadata: { deletionTimestamp } }),
    );
    expect(state).toMatchObject({ end: { cause: "PodDeleted" } });
  });

  test.each(["NodeShutdown", "Terminated", "Shutdown"])(
    "evicted or rejected by a node that shuts down: %s",
    (reason) => {
      const message = "Pod was rejected as the node is shutting down.";
      expect(readPodState(pod({ phase: "Failed", reason, message, containerStatuses: [] }))).toMatchObject({
        end: { cause: "Evicted", message },
      });
    },
  );

  test("ignores a disruption that was announced and withdrawn", () => {
    const conditions = [...PREPARED, { ...target("PreemptionByScheduler"), status: "False" }];
    expect(readPodState(pod({ conditions, containerStatuses: [terminated()] }))).toMatchObject({
      end: { cause: "Killed" },
    });
  });

  test.each([
    ["the phase is Unknown", { phase: "Unknown" }],
    [
      "the node controller says so",
      { phase: "Running", reason: "NodeLost", message: "Node node-1 which was running pod x is unresponsive" },
    ],
  ])("is NodeLost, although the container may still run: %s", (_, status) => {
    const running = containerStatus(SESSION, { running: { startedAt: "2026-01-01T00:00:00Z" } });
    expect(readPodState(pod({ ...status, containerStatuses: [running] }))).toMatchObject({
      end: { cause: "NodeLost", message: expect.stringContaining("node-1") },
    });
  });

  test("counts a Pod that failed while its container ran as lost, not as failed to start", () => {
    const running = containerStatus(SESSION, { running: { startedAt: "2026-01-01T00:00:00Z" } });
    expect(readPodState(pod({ phase: "Failed", containerStatuses: [running] }))).toMatchObject({
      end: { cause: "NodeLost", startedAtMs: Date.UTC(2026, 0, 1) },
    });
  });

  test("counts a Pod that its kubelet rejected as never started", () => {
    const refused = pod({
      phase: "Failed",
      reason: "OutOfcpu",
      message: "Node didn't have enough resource: cpu",
      containerStatuses: [],
    });
    expect(readPodState(refused)).toMatchObject({
      end: { cause: "StartFailed", message: "Node didn't have enough resource: cpu" },
    });
  });

  test("counts an end during a deletion's grace period as deletion", () => {
    const deleted = (finishedAt: string, exitCode: number) => {
      const { metadata, ...rest } = pod({ containerStatuses: [terminated({ exitCode, finishedAt })] });
      // Deleted at :05, gone by :35 at the latest.
      return summaryOf(
        readPodState({
          ...rest,
          metadata: { ...metadata, deletionTimestamp: "2026-01-01T00:00:35Z", deletionGracePeriodSeconds: 30 },
        }),
      );
    };
    expect(deleted("2026-01-01T00:00:05Z", 143)).toBe("ended: PodDeleted");
    expect(deleted("2026-01-01T00:00:06Z", 0)).toBe("ended: PodDeleted");
    expect(deleted("2026-01-01T00:00:04Z", 0)).toBe("ended: Completed");
    expect(deleted("2026-01-01T00:00:04Z", 1)).toBe("ended: Failed");
  });

  test("does not give a running container without a start time an old one", () => {
    const running = containerStatus(SESSION, { running: { startedAt: null } });
    expect(readPodState(pod({ startTime: "2026-01-01T00:00:00Z", containerStatuses: [running] }))).toEqual({
      is: "running",
      startedAtMs: 0,
    });
  });
});

test("never throws, whatever is missing or malformed in a status", () => {
  const text = fc.constantFrom(
    "",
    "x",
    "Failed",
    "Unknown",
    "True",
    "False",
    "Initialized",
    "DisruptionTarget",
    "not a time",
    "2026-01-01T00:00:00Z",
  );
  const odd = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: null });
  const part = (fields: Record<string, fc.Arbitrary<unknown>>) =>
    fc.record(Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, odd(value)])), {
      requiredKeys: [],
    });
  const state = part({
    waiting: part({ reason: text, message: text }),
    running: part({ startedAt: text }),
    terminated: part({ exitCode: fc.integer(), reason: text, message: text, startedAt: text, finishedAt: text }),
  });
  const statuses = fc.array(part({ name: fc.constantFrom(SESSION, "other"), state }), { maxLength: 3 });
  const status = part({
    phase: text,
    reason: text,
    message: text,
    startTime: text,
    conditions: fc.array(part({ type: text, status: text, reason: text, message: text }), { maxLength: 4 }),
    containerStatuses: statuses,
    initContainerStatuses: statuses,
  });
  const metadata = part({
    name: text,
    namespace: text,
    deletionTimestamp: text,
    deletionGracePeriodSeconds: fc.integer(),
    annotations: part({ "berth.dev/session-container": fc.constant(SESSION) }),
  });
  const spec = part({ nodeName: text, containers: fc.array(part({ name: text }), { maxLength: 2 }) });
  const anyPod = fc.record({ metadata, spec, status: odd(status) }) as unknown as fc.Arbitrary<Pod>;
  fc.assert(
    fc.property(anyPod, (raw) => {
      const seen = readPodState(raw);
      expect(["unscheduled", "preparing", "parked", "running", "ended"]).toContain(seen.is);
    }),
    { numRuns: 2_000 },
  );
});

describe("a turn whose keeper ended its Pod at the deadline", () => {
  const at = (second: number) => `2030-01-01T00:00:0${second}Z`;
  const endsAt = (second: number, exitCode = 0) => {
    const keeper = { terminated: { exitCode: 4, finishedAt: at(3) } };
    const turn = { terminated: { exitCode, finishedAt: at(second) } };
    const annotations = {
      "berth.dev/session-container": SESSION,
      "berth.dev/ended-turn": "0",
      "berth.dev/parking": "Shell",
      "berth.dev/assigned-at": at(0),
    };
    return pod(
      {
        phase: "Failed",
        containerStatuses: [containerStatus(SESSION, keeper)],
        ephemeralContainerStatuses: [containerStatus("berth-turn-1", turn)],
      },
      {
        metadata: { name: "berth-research-x", namespace: "agents", annotations },
        spec: { ephemeralContainers: [{ name: "berth-turn-1" }] },
      },
    );
  };

  test.each([0, 143, 137])("exceeded the deadline, although its program exits with %i", (exitCode) => {
    expect(summaryOf(readPodState(endsAt(4, exitCode)))).toBe("ended: DeadlineExceeded");
  });

  test("completed, if it had ended before", () => {
    expect(summaryOf(readPodState(endsAt(2)))).toBe("ended: Completed");
  });
});
