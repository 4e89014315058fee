import { ANNOTATION_ASSIGNED_AT, ANNOTATION_SESSION_CONTAINER } from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import { lastLines } from "../core/text.ts";
import { ENDED_PHASES, IMAGE_PULL_RETRIED, ORDINARY_WAITS } from "../kube/objects.ts";
import type { Condition, ContainerStateTerminated, ContainerStatus, Pod, PodStatus } from "../kube/resource.ts";
import { assignedAtMs, parkingOf } from "./pod-gate.ts";
import {
  EXIT_DEADLINE,
  endedTurn,
  hasOpenTurn,
  hasTurns,
  isRerun,
  keeperStatus,
  newestTurn,
  turnName,
  turnStatus,
} from "./turns.ts";

/** Why a session container ended; each is an end reason of the closed set in api/reasons. */
export type EndCause =
  | "Completed"
  | "Failed"
  | "OOMKilled"
  | "Killed"
  | "Evicted"
  | "Preempted"
  | "NodeLost"
  | "DeadlineExceeded"
  | "StartFailed"
  | "PodDeleted";

/** End causes that the status of the Pod shows, after that of its container. */
export const LATE_CAUSES: ReadonlySet<EndCause> = new Set<EndCause>([
  "Evicted",
  "Preempted",
  "NodeLost",
  "DeadlineExceeded",
]);

/** Causes that say nothing about the program in the container: something else ended the Pod. */
export const FROM_OUTSIDE: ReadonlySet<EndCause> = new Set<EndCause>([...LATE_CAUSES, "PodDeleted"]);

export interface End {
  readonly cause: EndCause;
  readonly message: string;
  readonly exitCode: number | null;
  /** Milliseconds since the epoch, by the node's clock; null where the status does not say. */
  readonly startedAtMs: number | null;
  readonly finishedAtMs: number | null;
}

/** The state of a session Pod, judged by its session container: the Pod's phase follows later or never. */
export type PodState =
  | { readonly is: "unscheduled"; readonly reason: string; readonly message: string }
  /** Another controller must remove its scheduling gates before the scheduler looks for a node. */
  | { readonly is: "gated"; readonly message: string }
  /** On a node, not parked yet. `problem` is the kubelet's complaint, if any. */
  | { readonly is: "preparing"; readonly problem: Problem | null }
  /** Prepared and waiting for the claim's Secret, or for its line: it can run a session at once. */
  | { readonly is: "parked" }
  | { readonly is: "running"; readonly startedAtMs: number }
  | { readonly is: "ended"; readonly end: End };

export interface Problem {
  readonly reason: string;
  readonly message: string;
}

/** The kubelet's watch of a Secret lags because its API server was away. It retries, so this is not a problem. */
const SECRET_NOT_SYNCED = /^failed to sync \w+ cache: /;
/**
 * The container runtime does not answer while it restarts, which is no problem either. A registry's message may look
 * the same.
 */
const RUNTIME_AWAY = /rpc error: code = (Unavailable|DeadlineExceeded|Canceled) /;

/** 128 + SIGKILL: the exit code of a container that was killed, except by the kernel for its memory. */
const EXIT_SIGKILL = 137;

/** containerd's report for a container that ended while its node or containerd was down. */
const END_UNSEEN = { reason: "Unknown", exitCode: 255 };

/** Who deletes Pods of a node that does not answer or is being drained, and of one that no longer exists. */
const BY_TAINT_MANAGER = "DeletionByTaintManager";
const BY_POD_GC = "DeletionByPodGC";

/** The kubelet's reasons for a Pod that a node shutdown ended or kept out; `Shutdown` before 1.22. */
const NODE_SHUTDOWN = new Set(["Terminated", "NodeShutdown", "Shutdown"]);

/** The largest clock difference between a node and the control plane, if their clocks are synchronized at all. */
const CLOCK_SKEW_MS = 10_000;

/** The API server's reason for a Pod with scheduling gates. */
const GATED = "SchedulingGated";

/** Reasons of containerd and CRI-O for a command that could not be started. */
const START_ERRORS = new Set(["StartError", "ContainerCannotRun"]);

/**
 * Reads a Pod. `pod.metadata.name` is also the name of the Secret that it waits for.
 * @param pod raw Pod from the API server
 * @param turn the claim's turn, if the Pod has turns; by default the one that waits or serves
 */
export function readPodState(pod: Pod, turn?: number): PodState {
  if (hasTurns(pod)) return readTurnState(pod, turn ?? (hasOpenTurn(pod) ? newestTurn(pod) : 0));
  const status = pod.status ?? {};
  const container = sessionContainerStatus(pod);
  const state = container?.state ?? {};
  const terminated = state.terminated ?? endBeforeWaiting(container);
  if (terminated) return { is: "ended", end: endOf(pod, status, terminated) };
  if (ENDED_PHASES.has(status.phase ?? "")) {
    const startedAtMs = state.running ? sessionStart(pod, state.running.startedAt) : null;
    return { is: "ended", end: { ...endWithoutContainer(pod, status, state.running !== undefined), startedAtMs } };
  }
  if (nodeLost(status)) {
    return { is: "ended", end: { ...NO_TIMES, cause: "NodeLost", message: nodeLostMessage(pod), exitCode: null } };
  }
  if (state.running) {
    if (waitsForLine(pod)) return { is: "parked" };
    return { is: "running", startedAtMs: sessionStart(pod, state.running.startedAt) ?? 0 };
  }
  if (!pod.spec.nodeName) return withoutNode(pod);
  const waiting = { reason: state.waiting?.reason ?? "", message: state.waiting?.message ?? "" };
  if (!waitsForSecret(pod, waiting)) return { is: "preparing", problem: problemOf(status, waiting) };
  return sandboxReady(status) ? { is: "parked" } : { is: "preparing", problem: null };
}

/** The state of a Pod with turns, judged by one of them; 0: none was added yet. */
function readTurnState(pod: Pod, turn: number): PodState {
  const status = pod.status ?? {};
  const keeper = keeperStatus(pod);
  const container = turnStatus(pod, turn);
  const state = container?.state ?? {};
  const terminated = state.terminated ?? endBeforeWaiting(container);
  // A rerun of a turn that has ended on record is no session.
  const isOver = turn > 0 && turn <= endedTurn(pod);
  const keeperEnd = keeper?.state?.terminated ?? endBeforeWaiting(keeper);
  if (terminated) {
    const end = isOver ? endOnRecord(pod, terminated) : endOfTurn(pod, status, terminated, keeperEnd);
    return { is: "ended", end };
  }
  if (isOver) return { is: "ended", end: END_WITHOUT_STATUS };
  if (isRerun(pod, turn)) return { is: "ended", end: END_BEFORE_RERUN };
  if (keeperEnd) return { is: "ended", end: endOfKeeper(pod, status, keeperEnd) };
  if (ENDED_PHASES.has(status.phase ?? "")) {
    return { is: "ended", end: endWithoutContainer(pod, status, state.running !== undefined) };
  }
  if (nodeLost(status)) {
    return { is: "ended", end: { ...NO_TIMES, cause: "NodeLost", message: nodeLostMessage(pod), exitCode: null } };
  }
  if (state.running && !waitsForLine(pod)) {
    return { is: "running", startedAtMs: sessionStart(pod, state.running.startedAt) ?? 0 };
  }
  if (!pod.spec.nodeName) return withoutNode(pod);
  if (state.running && keeper?.state?.running && sandboxReady(status)) return { is: "parked" };
  const waitOf = (of: ContainerStatus | undefined) => ({
    reason: of?.state?.waiting?.reason ?? "",
    message: of?.state?.waiting?.message ?? "",
  });
  return { is: "preparing", problem: problemOf(status, waitOf(keeper)) ?? problemOf(status, waitOf(container)) };
}

/** A turn whose end is on record, and whose status the kubelet has lost. */
const END_WITHOUT_STATUS: End = {
  cause: "Completed",
  message: "how the container ended is unknown",
  exitCode: null,
  startedAtMs: null,
  finishedAtMs: null,
};

/** The program may have run: only its end is unknown. */
const END_BEFORE_RERUN: End = {
  ...END_WITHOUT_STATUS,
  cause: "NodeLost",
  message: "how the container ended is unknown, because its node lost its record and started an idle one",
};

/** The end of a turn that is on record: the Pod may wait for the next work item, or serve it. */
function endOnRecord(pod: Pod, terminated: ContainerStateTerminated): End {
  const { exitCode, finishedAt } = terminated;
  const startedAtMs = time(pod.metadata.annotations?.[ANNOTATION_ASSIGNED_AT]);
  const base = { exitCode, startedAtMs, finishedAtMs: time(finishedAt) };
  if (terminated.reason === "OOMKilled") return { ...base, cause: "OOMKilled", message: OUT_OF_MEMORY };
  return { ...base, ...endByCode(terminated) };
}

/** The end of a turn. A program that handles SIGTERM exits with any code after its keeper has ended. */
function endOfTurn(
  pod: Pod,
  status: PodStatus,
  terminated: ContainerStateTerminated,
  keeper: ContainerStateTerminated | undefined,
): End {
  const end = endOf(pod, status, terminated);
  if (keeper?.exitCode !== EXIT_DEADLINE || FROM_OUTSIDE.has(end.cause)) return end;
  const endedFirst = (end.finishedAtMs ?? Number.POSITIVE_INFINITY) < (time(keeper.finishedAt) ?? 0);
  return endedFirst ? end : { ...end, cause: "DeadlineExceeded", message: DEADLINE_PASSED };
}

const DEADLINE_PASSED = "the Pod's deadline passed before an operator ended it";

/** The keeper ended, so the kubelet ends the turn. */
function endOfKeeper(pod: Pod, status: PodStatus, terminated: ContainerStateTerminated): End {
  const end = endOf(pod, status, terminated);
  if (FROM_OUTSIDE.has(end.cause) || START_ERRORS.has(terminated.reason ?? "")) return end;
  if (terminated.exitCode === EXIT_DEADLINE) {
    return { ...end, cause: "DeadlineExceeded", message: DEADLINE_PASSED };
  }
  if (terminated.exitCode === EXIT_NOT_FOUND && waitsForLine(pod)) {
    return { ...end, cause: "StartFailed", message: `the keeper container could not run; ${NEEDS_TOOLS}` };
  }
  const cause = waitsForLine(pod) ? "StartFailed" : "Killed";
  return { ...end, cause, message: `the keeper container ended with exit code ${terminated.exitCode}` };
}

const known = new WeakMap<Pod, PodState>();

/** The state of a cached Pod. A cache never changes an object, so each is read once. */
export function stateOf(pod: Pod): PodState {
  let state = known.get(pod);
  if (state === undefined) {
    state = readPodState(pod);
    known.set(pod, state);
  }
  return state;
}

/**
 * The end of a container that never restarts, even if its status says that it waits: a kubelet that comes back and
 * finds no container reports ContainerCreating for a moment.
 */
function endBeforeWaiting(container: ContainerStatus | undefined): ContainerStateTerminated | undefined {
  return container?.state?.waiting ? container.lastState?.terminated : undefined;
}

/** Whether the container runs only to wait for its session. When its line is sent, its Pod is assigned (asAssigned). */
function waitsForLine(pod: Pod): boolean {
  return parkingOf(pod) !== "Key" && assignedAtMs(pod) === null;
}

/** When the session began, in ms since the epoch; null: the container only waited for one, or its node doesn't say. */
function sessionStart(pod: Pod, startedAt: string | null | undefined): number | null {
  return waitsForLine(pod) ? null : (assignedAtMs(pod) ?? time(startedAt));
}

/** The container that runs the session: the newest turn, if the Pod has turns. */
export function runningContainerName(pod: Pod): string | undefined {
  return hasTurns(pod) ? turnName(newestTurn(pod)) : sessionContainerName(pod);
}

/** The container that Berth gates, as its Pod's annotation names it; without the annotation, the first one. */
export function sessionContainerName(pod: Pod): string | undefined {
  // Not the first status: the kubelet sorts them by name.
  return pod.metadata.annotations?.[ANNOTATION_SESSION_CONTAINER] ?? pod.spec.containers?.[0]?.name;
}

/**
 * The kubelet's messages for an environment variable whose Secret or key is missing. It says "secret" if it watches
 * Secrets, and repeats the API server's "secrets" if it is configured to request them.
 */
function waitsForSecret(pod: Pod, waiting: Problem): boolean {
  if (waiting.reason !== "CreateContainerConfigError") return false;
  const { name, namespace } = pod.metadata;
  if (waiting.message === `secret "${name}" not found` || waiting.message === `secrets "${name}" not found`)
    return true;
  return (
    waiting.message.startsWith("couldn't find key ") && waiting.message.endsWith(` in Secret ${namespace}/${name}`)
  );
}

function sandboxReady(status: PodStatus): boolean {
  return isTrue(status, "PodReadyToStartContainers") && isTrue(status, "Initialized");
}

function isTrue(status: PodStatus, type: string): boolean {
  return status.conditions?.some((condition) => condition.type === type && condition.status === "True") ?? false;
}

function sessionContainerStatus(pod: Pod): ContainerStatus | undefined {
  const name = sessionContainerName(pod);
  return pod.status?.containerStatuses?.find((status) => status.name === name);
}

function withoutNode(pod: Pod): PodState {
  const gated = gateProblem(pod);
  if (gated !== null) return { is: "gated", message: gated };
  const condition = pod.status?.conditions?.find(({ type }) => type === "PodScheduled");
  // The API server's reason stays until the scheduler has tried a Pod without gates.
  if (condition?.status !== "False" || condition.reason === GATED)
    return { is: "unscheduled", reason: "", message: "" };
  return { is: "unscheduled", reason: condition.reason ?? "Unschedulable", message: condition.message ?? "" };
}

/** The scheduling gates that a Pod waits for, as the rest of a sentence; null: it has none. */
export function gateProblem({ spec }: Pod): string | null {
  const names = (spec.schedulingGates ?? []).map(({ name }) => name);
  return names.length === 0 ? null : `waits for its scheduling gates (${names.join(", ")})`;
}

/** What keeps a Pod from being parked or started: a complaint about its own container or an init container. */
function problemOf(status: PodStatus, waiting: Problem): Problem | null {
  if (isTransient(waiting)) return null;
  if (!ORDINARY_WAITS.has(waiting.reason)) return waiting;
  // A sidecar that crashes after its first start holds no other container back.
  const initializing = isTrue(status, "Initialized") ? [] : (status.initContainerStatuses ?? []);
  for (const init of initializing) {
    const wait = init.state?.waiting;
    if (wait?.reason && !ORDINARY_WAITS.has(wait.reason)) {
      const problem = { reason: wait.reason, message: wait.message ?? "" };
      return isTransient(problem) ? null : { ...problem, message: `init container ${init.name}: ${problem.message}` };
    }
    if (init.state?.terminated && init.state.terminated.exitCode !== 0) {
      return { reason: "InitContainerFailed", message: initFailure(init.name, init.state.terminated) };
    }
  }
  return null;
}

function isTransient({ reason, message }: Problem): boolean {
  return SECRET_NOT_SYNCED.test(message) || (RUNTIME_AWAY.test(message) && !IMAGE_PULL_RETRIED.has(reason));
}

function initFailure(name: string, { exitCode, message }: ContainerStateTerminated): string {
  return `init container ${name} ended with ${exitCode}${lastLines(message)}`;
}

const NO_TIMES = { startedAtMs: null, finishedAtMs: null };

function endOf(pod: Pod, status: PodStatus, terminated: ContainerStateTerminated): End {
  const { exitCode } = terminated;
  const startedAtMs = sessionStart(pod, terminated.startedAt);
  const base = {
    exitCode,
    // A container that never started carries the epoch.
    startedAtMs: startedAtMs && startedAtMs > 0 ? startedAtMs : null,
    finishedAtMs: time(terminated.finishedAt),
  };
  if (START_ERRORS.has(terminated.reason ?? "")) {
    const said = terminated.message ?? "the command failed to start";
    return { ...base, startedAtMs: null, cause: "StartFailed", message: `${said}${startFix(pod, said)}` };
  }
  const disruption = disruptionOf(status, base.finishedAtMs);
  if (disruption) return { ...base, ...disruption };
  if (terminated.reason === "OOMKilled" && exitCode !== 0) {
    return { ...base, cause: "OOMKilled", message: OUT_OF_MEMORY };
  }
  if (endedByDeletion(pod, base.finishedAtMs)) {
    const doing = waitsForLine(pod) ? "it waited for a session" : "its session ran";
    const message =
      base.finishedAtMs === null
        ? "the Pod was deleted; how its container ended is unknown"
        : `the Pod was deleted while ${doing}; the container ended with exit code ${exitCode}`;
    return { ...base, cause: "PodDeleted", message };
  }
  if (terminated.reason === END_UNSEEN.reason && exitCode === END_UNSEEN.exitCode) {
    const message = "how the container ended is unknown, because its node or the node's container runtime restarted";
    return { ...base, cause: "NodeLost", message, exitCode: null };
  }
  if (waitsForLine(pod)) return { ...base, cause: "StartFailed", message: endedWaiting(pod, terminated) };
  return { ...base, ...endByCode(terminated) };
}

const OUT_OF_MEMORY = "the container used more memory than its limit";

function endByCode({ exitCode, message }: ContainerStateTerminated): Pick<End, "cause" | "message"> {
  if (exitCode === 0) return { cause: "Completed", message: "" };
  const text = `the container ended with exit code ${exitCode}${lastLines(message)}`;
  return { cause: exitCode === EXIT_SIGKILL ? "Killed" : "Failed", message: text };
}

/** Exit code of a shell when the command to run is not in the image. */
const EXIT_NOT_FOUND = 127;

function endedWaiting(pod: Pod, { exitCode, message }: ContainerStateTerminated): string {
  if ((parkingOf(pod) === "Shell" || hasTurns(pod)) && exitCode === EXIT_NOT_FOUND) {
    return `${message?.trim() || "the program is not in the image"}${correctCommand(pod)}`;
  }
  return `the container ended with exit code ${exitCode} while it waited for a session${lastLines(message)}`;
}

function correctCommand(pod: Pod): string {
  return `; correct the command of container ${sessionContainerName(pod)} in spec.sessions.template, or the image`;
}

/** Part of the message of a Pod whose waiting shell could not be started. */
export const NEEDS_SHELL = "parking: Shell needs /bin/sh in the image; add it, or set parking: Key";

/** Part of the message of a Pod whose keeper can't run. */
export const NEEDS_TOOLS =
  "sleeping needs /bin/sh, date and sleep in the image; add them, or set workspace.sleepSeconds: 0";

/** What to do if a shell or a program could not be started; `said` is the runtime's message, which names it. */
function startFix(pod: Pod, said: string): string {
  if (!said.includes("/bin/sh")) return said.includes('exec: "') ? correctCommand(pod) : "";
  if (parkingOf(pod) === "Shell") return `; ${NEEDS_SHELL}`;
  return hasTurns(pod) ? `; ${NEEDS_TOOLS}` : "";
}

/**
 * Whether the container ended during the grace period of a deletion. The object of the final watch event has a grace of
 * 0 and can't tell.
 */
function endedByDeletion(pod: Pod, finishedAtMs: number | null): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds: grace } = pod.metadata;
  // The kubelet has no end time for a container that was never created, and reports 137 for a parked Pod that is
  // deleted.
  if (finishedAtMs === null) return deletionTimestamp !== undefined;
  // The timestamp is the end of the grace period.
  const overAtMs = time(deletionTimestamp);
  return overAtMs !== null && !!grace && finishedAtMs >= overAtMs - grace * SECOND_MS;
}

/**
 * Causes that the Pod's status names, apart from the container's exit code.
 * @param finishedAtMs when the container ended, if its node reported that
 */
function disruptionOf(status: PodStatus, finishedAtMs: number | null): { cause: EndCause; message: string } | null {
  const target = status.conditions?.find(
    (condition) =>
      condition.type === "DisruptionTarget" && condition.status === "True" && !isTooLate(condition, finishedAtMs),
  );
  const message = status.message ?? target?.message ?? "";
  if (status.reason === "DeadlineExceeded") return { cause: "DeadlineExceeded", message };
  if (status.reason === "Evicted" || NODE_SHUTDOWN.has(status.reason ?? "")) return { cause: "Evicted", message };
  if (status.reason === "NodeLost") return { cause: "NodeLost", message };
  if (target?.reason === "PreemptionByScheduler" || status.reason === "Preempting")
    return { cause: "Preempted", message };
  if (target?.reason === BY_POD_GC) return { cause: "NodeLost", message };
  // A node that reports how the container ended did answer: it was tainted instead.
  if (target?.reason === BY_TAINT_MANAGER && finishedAtMs === null) return { cause: "NodeLost", message };
  if (target) return { cause: "Evicted", message };
  return null;
}

/**
 * Whether a disruption came after the container had ended: a finished Pod is kept for its logs and may still be
 * evicted. The kubelet writes its own condition together with the end it caused, so slightly later.
 */
function isTooLate({ reason, lastTransitionTime }: Condition, finishedAtMs: number | null): boolean {
  const sinceMs = time(lastTransitionTime);
  if (reason === "TerminationByKubelet" || finishedAtMs === null || sinceMs === null) return false;
  return sinceMs > finishedAtMs + CLOCK_SKEW_MS;
}

/** A Pod that ended without a report of its session container: evicted before it started, or lost with its node. */
function endWithoutContainer({ metadata }: Pod, status: PodStatus, ran: boolean): End {
  const disruption = disruptionOf(status, null);
  if (disruption) return { ...NO_TIMES, ...disruption, exitCode: null };
  if (ran) {
    const message = status.message ?? `the Pod is ${status.phase}; how its container ended is unknown`;
    return { ...NO_TIMES, cause: "NodeLost", message, exitCode: null };
  }
  if (metadata.deletionTimestamp) {
    const message = "the Pod was deleted before its session container started";
    return { ...NO_TIMES, cause: "PodDeleted", message, exitCode: null };
  }
  const failed = status.initContainerStatuses?.find(({ state }) => (state?.terminated?.exitCode ?? 0) !== 0);
  const message = failed?.state?.terminated
    ? initFailure(failed.name, failed.state.terminated)
    : (status.message ?? `the Pod is ${status.phase} and its session container never started`);
  return { ...NO_TIMES, cause: "StartFailed", message, exitCode: null };
}

/** The mark of the garbage collector and the taint manager on Pods of a lost node; the container may still run. */
function nodeLost(status: PodStatus): boolean {
  return status.phase === "Unknown" || status.reason === "NodeLost";
}

function nodeLostMessage(pod: Pod): string {
  return `node ${pod.spec.nodeName ?? "(unknown)"} stopped answering`;
}

function time(text: string | null | undefined): number | null {
  if (!text) return null;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? null : ms;
}

/** The cache of one Environment's session Pods. It is never enough to justify a deletion: read the Pod live first. */
export interface PodCache {
  get(name: string): Pod | undefined;
  /** This and `warm` return the same array until one of the Pods changes. */
  list(): readonly Pod[];
  /** Pods with the label of warm ones, also if they are not ready yet: few, however many run. */
  warm(): readonly Pod[];
  /** Pods whose session sleeps. */
  sleeping(): readonly Pod[];
  /** All Pods that were given this session: assigned or sleeping, in any state. */
  ofSession(sessionId: string): readonly Pod[];
}
