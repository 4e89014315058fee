import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ContainerState, Pod, PodStatus } from "../../src/kube/resource.ts";
import { type EndCause, type PodState, readPodState } from "../../src/pods/pod-state.ts";
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

/** `ended` as `ended: cause`, a problem as `preparing: reason`, all others by their word. */
function inAWord(state: PodState): string {
  if (state.is === "ended") return `ended: ${state.end.cause}`;
  if (state.is === "preparing" && state.problem) return `preparing: ${state.problem.reason}`;
  if (state.is === "unscheduled") return `unscheduled: ${state.reason}`;
  return state.is;
}

test("a container that ended is over, whatever a kubelet that comes back says it waits for", () => {
  const terminated = { exitCode: 1, startedAt: "2030-01-01T00:00:00Z" };
  const back = { ...containerStatus(SESSION, waitingFor("", "ContainerCreating")), lastState: { terminated } };
  expect(inAWord(readPodState(pod({ containerStatuses: [back] })))).toBe("ended: Failed");
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
    "scheduling-gated": "unscheduled: SchedulingGated",
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
    expect(inAWord(readPodState(recordedPod(name)))).toBe(EXPECTED[name]);
  });

  test("no recording is left out of the table, and none of the table is gone", () => {
    expect(Object.keys(EXPECTED).sort()).toEqual([...RECORDED_NAMES].sort());
  });

  test("an end carries the container's own times, code and last words", () => {
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

  test("a container that could not be started has no start time, and says kubelet's words", () => {
    expect(readPodState(recordedPod("start-error-failed"))).toMatchObject({
      end: { startedAtMs: null, message: expect.stringContaining("/no/such/binary") },
    });
  });

  test("a Pod without a node says the scheduler's words", () => {
    expect(readPodState(recordedPod("unschedulable-cpu"))).toMatchObject({
      message: expect.stringContaining("Insufficient cpu"),
    });
  });

  test("a failed init container says which, how, and its last words", () => {
    expect(readPodState(recordedPod("init-container-failed"))).toMatchObject({
      end: { message: "init container prep ended with 3: bad config" },
    });
  });
});

describe("parked", () => {
  const parkedBy = (message: string) =>
    inAWord(readPodState(pod({ containerStatuses: [containerStatus(SESSION, waitingFor(message))] })));

  test.each([
    ["no Secret yet", MISSING_SECRET, "parked"],
    // kubelet configured to ask the API server itself passes on that server's words: "secrets", not "secret".
    ["no Secret yet, by the API server's words", 'secrets "berth-research-x" not found', "parked"],
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
    // kubelet lost its API server for a moment: it looks again in some seconds, and nothing is wrong with the Pod.
    ["kubelet could not look", "failed to sync secret cache: timed out waiting for the condition", "preparing"],
  ])("%s", (_, message, expected) => expect(parkedBy(message)).toBe(expected));

  const AWAY = 'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing"';

  // containerd 2.2 that restarts, as kubelet tells it of a container that was just given its session.
  test.each([
    ["ImageInspectError", `Failed to inspect image "": ${AWAY}`, "preparing"],
    ["CreateContainerError", AWAY, "preparing"],
    // A registry that does not answer.
    ["ErrImagePull", `failed to pull and unpack image "x": ${AWAY}`, "preparing: ErrImagePull"],
    ["CreateContainerError", "rpc error: code = Unknown desc = no such device", "preparing: CreateContainerError"],
  ])("%s while the container runtime is away says nothing of the Pod: %s", (reason, message, expected) => {
    const containerStatuses = [containerStatus(SESSION, waitingFor(message, reason))];
    expect(inAWord(readPodState(pod({ containerStatuses })))).toBe(expected);
  });

  test.each([
    ["the sandbox is not ready", "PodReadyToStartContainers"],
    ["an init container still runs", "Initialized"],
  ])("not while %s", (_, missing) => {
    expect(inAWord(readPodState(pod({ conditions: PREPARED.filter(({ type }) => type !== missing) })))).toBe(
      "preparing",
    );
  });

  test("an injected sidecar that comes first is not taken for the session container", () => {
    const containerStatuses = [
      containerStatus("istio-proxy", { running: { startedAt: "2026-01-01T00:00:00Z" } }),
      containerStatus(SESSION, waitingFor(MISSING_KEY)),
    ];
    expect(readPodState(pod({ containerStatuses })).is).toBe("parked");
  });

  test("a Pod that does not say which container is gated is judged by the first of its spec, not of its status", () => {
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

  test("a sidecar that crashes while parked does not make the Pod less ready", () => {
    const initContainerStatuses = [containerStatus("proxy", waitingFor("back-off", "CrashLoopBackOff"))];
    expect(readPodState(pod({ initContainerStatuses })).is).toBe("parked");
  });

  test("a sidecar that crashes while the session container is being created is no problem of the start", () => {
    const creating = pod({
      initContainerStatuses: [containerStatus("proxy", waitingFor("back-off", "CrashLoopBackOff"))],
      containerStatuses: [containerStatus(SESSION, waitingFor("", "ContainerCreating"))],
    });
    expect(readPodState(creating)).toEqual({ is: "preparing", problem: null });
  });

  test("an init container that cannot be pulled is the problem of a Pod that never gets parked", () => {
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

  test("without a node it is unscheduled, and says nothing before the scheduler has looked", () => {
    const { status } = pod();
    const fresh: Pod = { metadata: {}, spec: { containers: [] }, status: { ...status, conditions: [] } };
    expect(readPodState(fresh)).toEqual({ is: "unscheduled", reason: "", message: "" });
  });

  test("a Terminating Pod still is what its container is", () => {
    const going = pod(
      {},
      { metadata: { name: "berth-research-x", namespace: "agents", deletionTimestamp: "2026-01-01T00:00:00Z" } },
    );
    expect(readPodState({ ...going, metadata: { ...pod().metadata, ...going.metadata } }).is).toBe("parked");
  });
});

describe("parked by an init container", () => {
  const GATE = "berth-gate";
  const RUNNING: ContainerState = { running: { startedAt: "2026-01-01T00:00:00Z" } };
  const ended = (exitCode: number, message = ""): ContainerState => ({ terminated: { exitCode, message } });
  const initialized = (value: "True" | "False") => [
    isTrue("PodScheduled"),
    isTrue("PodReadyToStartContainers"),
    { type: "Initialized", status: value },
  ];
  /** A Pod whose gate is in this state; the session container waits for it unless another state is given. */
  const gated = (gate: ContainerState, more: { session?: ContainerState; status?: PodStatus } = {}) =>
    pod(
      {
        conditions: initialized("False"),
        initContainerStatuses: [containerStatus("prep", ended(0)), containerStatus(GATE, gate)],
        containerStatuses: [containerStatus(SESSION, more.session ?? waitingFor("", "PodInitializing"))],
        ...more.status,
      },
      { spec: { initContainers: [{ name: "prep" }, { name: GATE }] } },
    );

  test("while it runs", () => expect(inAWord(readPodState(gated(RUNNING)))).toBe("parked"));

  test("as a real kubelet reports an init container that runs", () => {
    const { status, ...rest } = recordedPod("init-container-running");
    const initContainerStatuses = status?.initContainerStatuses?.map((init) => ({ ...init, name: GATE }));
    const asGate: Pod = {
      ...rest,
      spec: { ...rest.spec, initContainers: [{ name: GATE }] },
      status: { ...status, ...(initContainerStatuses ? { initContainerStatuses } : {}) },
    };
    expect(inAWord(readPodState(asGate))).toBe("parked");
    // Any other init container that runs is still preparing something.
    expect(inAWord(readPodState(recordedPod("init-container-running")))).toBe("preparing");
  });

  test.each<[string, ContainerState, string]>([
    ["it waits for those before it", waitingFor("", "PodInitializing"), "preparing"],
    ["its image cannot be had", waitingFor("no such image", "ErrImagePull"), "preparing: ErrImagePull"],
    ["the runtime restarts", waitingFor("rpc error: code = Unavailable desc = x", "CreateContainerError"), "preparing"],
    [
      "the image runs as root and must not",
      waitingFor("container has runAsNonRoot and image will run as root"),
      "preparing: CreateContainerConfigError",
    ],
    ["it has failed", ended(1), "preparing: InitContainerFailed"],
    ["it has let the session container go on", ended(0), "preparing"],
  ])("not while %s", (_, gate, expected) => expect(inAWord(readPodState(gated(gate)))).toBe(expected));

  test("opened: from the gate's end to the container's start nothing is a problem, then it runs", () => {
    expect(inAWord(readPodState(gated(ended(0), { status: { conditions: initialized("True") } })))).toBe("preparing");
    const session: ContainerState = { running: { startedAt: "2026-01-01T00:00:01Z" } };
    expect(inAWord(readPodState(gated(ended(0), { session })))).toBe("running");
  });

  test("a gate that was passed too early: the container waits for our Secret like any parked one", () => {
    const session = waitingFor("couldn't find key acknowledged-at in Secret agents/berth-research-x");
    expect(inAWord(readPodState(gated(ended(0), { session, status: { conditions: initialized("True") } })))).toBe(
      "parked",
    );
  });

  test("opened, and the container cannot be made: a problem at once", () => {
    const session = waitingFor("no such command", "CreateContainerError");
    expect(inAWord(readPodState(gated(ended(0), { session })))).toBe("preparing: CreateContainerError");
  });

  test("an image without a shell: it never starts, and the message says what it lacks", () => {
    const gate = ended(128, 'exec: "/bin/sh": stat /bin/sh: no such file or directory');
    expect(readPodState(gated(gate, { status: { phase: "Failed" } }))).toMatchObject({
      end: {
        cause: "StartFailed",
        message: expect.stringMatching(/berth-gate ended with 128: .*\/bin\/sh.*parking: Key/),
      },
    });
  });

  test("deleted while it waits: the gate's end by SIGTERM asks for no other image", () => {
    expect(readPodState(gated(ended(143), { status: { phase: "Failed" } }))).toMatchObject({
      end: { cause: "StartFailed", message: "init container berth-gate ended with 143" },
    });
  });

  test("evicted while it waits: lost, and no failure", () => {
    const conditions = [...PREPARED, { ...isTrue("DisruptionTarget"), reason: "EvictionByEvictionAPI" }];
    expect(inAWord(readPodState(gated(ended(143), { status: { phase: "Failed", conditions } })))).toBe(
      "ended: Evicted",
    );
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
    ["evicted by somebody's request", "EvictionByEvictionAPI", "Evicted"],
    ["evicted by its node", "TerminationByKubelet", "Evicted"],
    ["preempted", "PreemptionByScheduler", "Preempted"],
    ["thrown off a node that was given a taint, and tells so", "DeletionByTaintManager", "Evicted"],
    ["collected after its node was removed", "DeletionByPodGC", "NodeLost"],
  ])("%s, while its container ran", (_, reason, cause) => {
    const conditions = [...PREPARED, target(reason)];
    const state = readPodState(pod({ phase: "Failed", conditions, containerStatuses: [terminated()] }));
    expect(state).toMatchObject({ is: "ended", end: { cause, exitCode: 137, message: `by ${reason}` } });
  });

  test.each<[string, string, EndCause]>([
    ["evicted", "TerminationByKubelet", "Evicted"],
    ["preempted", "PreemptionByScheduler", "Preempted"],
    ["lost with its node", "DeletionByPodGC", "NodeLost"],
  ])("%s while it was parked", (_, reason, cause) => {
    expect(readPodState(pod({ phase: "Failed", conditions: [...PREPARED, target(reason)] }))).toMatchObject({
      end: { cause, exitCode: null },
    });
  });

  test("thrown off a node that does not answer, which nobody saw", () => {
    const unseen = terminated({ reason: "ContainerStatusUnknown", startedAt: null, finishedAt: null });
    const conditions = [...PREPARED, target("DeletionByTaintManager")];
    expect(readPodState(pod({ conditions, containerStatuses: [unseen] }))).toMatchObject({
      end: { cause: "NodeLost" },
    });
  });

  test.each<[string, string, string, EndCause]>([
    ["long before it was thrown off its node", "EvictionByEvictionAPI", "2026-01-01T00:05:00Z", "Killed"],
    ["as its node's clock is a little behind", "EvictionByEvictionAPI", "2026-01-01T00:00:15Z", "Evicted"],
    ["at a time that nobody tells", "EvictionByEvictionAPI", "", "Evicted"],
    ["by its kubelet, which says so later", "TerminationByKubelet", "2026-01-01T00:05:00Z", "Evicted"],
  ])("ended %s", (_, reason, lastTransitionTime, cause) => {
    const conditions = [...PREPARED, { ...target(reason), lastTransitionTime }];
    expect(readPodState(pod({ conditions, containerStatuses: [terminated()] }))).toMatchObject({ end: { cause } });
  });

  test("deleted before its gate let its container start: no fault of the template", () => {
    const gate = containerStatus("berth-gate", { terminated: { exitCode: 143, reason: "Error" } });
    const deletionTimestamp = "2026-01-01T00:00:00Z";
    const state = readPodState(
      pod({ phase: "Failed", initContainerStatuses: [gate] }, { metadata: { deletionTimestamp } }),
    );
    expect(state).toMatchObject({ end: { cause: "PodDeleted" } });
  });

  test.each(["NodeShutdown", "Terminated", "Shutdown"])(
    "kept out, or ended, by a node that shuts down: %s",
    (reason) => {
      const message = "Pod was rejected as the node is shutting down.";
      expect(readPodState(pod({ phase: "Failed", reason, message, containerStatuses: [] }))).toMatchObject({
        end: { cause: "Evicted", message },
      });
    },
  );

  test("a disruption that was announced and taken back ends nothing", () => {
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
  ])("node lost: %s, although its container may run on", (_, status) => {
    const running = containerStatus(SESSION, { running: { startedAt: "2026-01-01T00:00:00Z" } });
    expect(readPodState(pod({ ...status, containerStatuses: [running] }))).toMatchObject({
      end: { cause: "NodeLost", message: expect.stringContaining("node-1") },
    });
  });

  test("a Pod that failed while its container ran was lost, and did not fail to start", () => {
    const running = containerStatus(SESSION, { running: { startedAt: "2026-01-01T00:00:00Z" } });
    expect(readPodState(pod({ phase: "Failed", containerStatuses: [running] }))).toMatchObject({
      end: { cause: "NodeLost", startedAtMs: Date.UTC(2026, 0, 1) },
    });
  });

  test("refused by the kubelet that it was bound to: never started", () => {
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

  test("deleted by somebody: an end during the grace is not the container's own", () => {
    const deleted = (finishedAt: string, exitCode: number) => {
      const { metadata, ...rest } = pod({ containerStatuses: [terminated({ exitCode, finishedAt })] });
      // Deleted at :05, gone by :35 at the latest.
      return inAWord(
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

  test("a running container without a start time is not taken for one that started long ago", () => {
    const running = containerStatus(SESSION, { running: { startedAt: null } });
    expect(readPodState(pod({ startTime: "2026-01-01T00:00:00Z", containerStatuses: [running] }))).toEqual({
      is: "running",
      startedAtMs: 0,
    });
  });
});

test("never throws, whatever of a status is missing or odd", () => {
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
