import { ANNOTATION_SESSION_CONTAINER } from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import type { Condition, ContainerStateTerminated, ContainerStatus, Pod, PodStatus } from "../kube/resource.ts";
import { GATE_CONTAINER, isGatedByInit } from "./pod-gate.ts";

/** Why a session container is over; each is a session end reason of the closed set in api/reasons. */
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

export interface End {
  readonly cause: EndCause;
  readonly message: string;
  readonly exitCode: number | null;
  /** Milliseconds since the epoch, by the node's clock; null where the status does not say. */
  readonly startedAtMs: number | null;
  readonly finishedAtMs: number | null;
}

/** Where a session Pod stands, judged by its session container's state: the Pod's phase comes later, or never. */
export type PodState =
  | { readonly is: "unscheduled"; readonly reason: string; readonly message: string }
  /** On a node, not parked yet. `problem` is what kubelet complains of, if it does. */
  | { readonly is: "preparing"; readonly problem: Problem | null }
  /** Complete, waiting for our Secret or in our init container: can run a session at once. */
  | { readonly is: "parked" }
  | { readonly is: "running"; readonly startedAtMs: number }
  | { readonly is: "ended"; readonly end: End };

export interface Problem {
  readonly reason: string;
  readonly message: string;
}

/** Waiting reasons of a container that is on its ordinary way; any other is a problem to show. */
const ORDINARY_WAITS = new Set(["", "ContainerCreating", "PodInitializing"]);

/** kubelet's own watch of a Secret has not caught up (its API server was away): it looks again, and nothing is wrong. */
const SECRET_NOT_SYNCED = /^failed to sync \w+ cache: /;
/** Its container runtime does not answer, since that restarts: the same. What a registry says may read alike. */
const RUNTIME_AWAY = /rpc error: code = (Unavailable|DeadlineExceeded|Canceled) /;
const FROM_REGISTRY = new Set(["ErrImagePull", "ImagePullBackOff"]);

/** 128 + SIGKILL: what a container that was killed, and not by the kernel for its memory, ends with. */
const EXIT_SIGKILL = 137;

/** containerd's words for a container whose end nobody saw: its node was started anew. */
const UNSEEN = { reason: "Unknown", exitCode: 255 };

/** What the gate ends with when its Pod is deleted while it waits. */
const EXIT_SIGTERM = 143;

const GATE_NEEDS =
  "parking: Init needs /bin/sh and sleep in the session container's image: add them, or use parking: Key";

/** Who deletes the Pods of a node that does not answer or is being emptied, and of one that is not there any more. */
const BY_TAINT_MANAGER = "DeletionByTaintManager";
const BY_POD_GC = "DeletionByPodGC";

/** kubelet's words for a Pod that a shutdown of its node ended, or kept out; `Shutdown` before 1.22. */
const NODE_SHUTDOWN = new Set(["Terminated", "NodeShutdown", "Shutdown"]);

/** How far the clocks of a node and of the control plane are apart at most, where they are kept at all. */
const CLOCK_SKEW_MS = 10_000;

/** containerd's and CRI-O's words for a command that could not be started at all. */
const START_ERRORS = new Set(["StartError", "ContainerCannotRun"]);

/**
 * Reads a Pod. `pod.metadata.name` is the name of the Secret it waits for.
 * @param pod raw Pod as the API server gives it
 */
export function readPodState(pod: Pod): PodState {
  const status = pod.status ?? {};
  const container = sessionContainerStatus(pod);
  const state = container?.state ?? {};
  const terminated = state.terminated ?? endBeforeWaiting(container);
  if (terminated) return { is: "ended", end: endOf(pod, status, terminated) };
  if (status.phase === "Failed" || status.phase === "Succeeded") {
    const startedAtMs = state.running ? time(state.running.startedAt) : null;
    return { is: "ended", end: { ...endWithoutContainer(pod, status, state.running !== undefined), startedAtMs } };
  }
  if (nodeLost(status)) {
    return { is: "ended", end: { ...NO_TIMES, cause: "NodeLost", message: nodeLostMessage(pod), exitCode: null } };
  }
  if (state.running) return { is: "running", startedAtMs: time(state.running.startedAt) ?? 0 };
  if (!pod.spec.nodeName) return unscheduled(status);
  // It runs once all other init containers are through: what is left to be done is the session's.
  if (isGatedByInit(pod) && gateStatus(status)?.state?.running) return { is: "parked" };
  const waiting = { reason: state.waiting?.reason ?? "", message: state.waiting?.message ?? "" };
  if (!waitsForSecret(pod, waiting)) return { is: "preparing", problem: problemOf(status, waiting) };
  return sandboxReady(status) ? { is: "parked" } : { is: "preparing", problem: null };
}

const known = new WeakMap<Pod, PodState>();

/** The state of a Pod of a cache. A cache never changes an object, so each is read once. */
export function stateOf(pod: Pod): PodState {
  let state = known.get(pod);
  if (state === undefined) {
    state = readPodState(pod);
    known.set(pod, state);
  }
  return state;
}

/**
 * How a container ended that is not started again, whatever it is said to wait for: a kubelet that comes back and finds
 * none says ContainerCreating for a moment.
 */
function endBeforeWaiting(container: ContainerStatus | undefined): ContainerStateTerminated | undefined {
  return container?.state?.waiting ? container.lastState?.terminated : undefined;
}

function gateStatus(status: PodStatus): ContainerStatus | undefined {
  return status.initContainerStatuses?.find(({ name }) => name === GATE_CONTAINER);
}

/** The container that Berth gates, as resolved when the Pod was made; the first one of a Pod that does not say. */
export function sessionContainerName(pod: Pod): string | undefined {
  // Not the first status: kubelet sorts them by name.
  return pod.metadata.annotations?.[ANNOTATION_SESSION_CONTAINER] ?? pod.spec.containers?.[0]?.name;
}

/**
 * kubelet's messages for an environment variable whose Secret, or whose key in it, is missing. It says "secret" where it
 * watches Secrets, and passes on the API server's "secrets" where it is configured to ask for them.
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

function unscheduled(status: PodStatus): PodState {
  const condition = status.conditions?.find(({ type }) => type === "PodScheduled");
  return {
    is: "unscheduled",
    reason: condition?.status === "False" ? (condition.reason ?? "Unschedulable") : "",
    message: condition?.message ?? "",
  };
}

/** What keeps a Pod from being parked, or from starting: its own container's complaint, or an init container's. */
function problemOf(status: PodStatus, waiting: Problem): Problem | null {
  if (couldNotLook(waiting)) return null;
  if (!ORDINARY_WAITS.has(waiting.reason)) return waiting;
  // A sidecar that crashes after its first start holds nobody back.
  const initializing = isTrue(status, "Initialized") ? [] : (status.initContainerStatuses ?? []);
  for (const init of initializing) {
    const wait = init.state?.waiting;
    if (wait?.reason && !ORDINARY_WAITS.has(wait.reason)) {
      const problem = { reason: wait.reason, message: wait.message ?? "" };
      return couldNotLook(problem) ? null : { ...problem, message: `init container ${init.name}: ${problem.message}` };
    }
    if (init.state?.terminated && init.state.terminated.exitCode !== 0) {
      return { reason: "InitContainerFailed", message: initFailure(init.name, init.state.terminated) };
    }
  }
  const sandbox = status.conditions?.find(({ type }) => type === "PodReadyToStartContainers");
  if (sandbox?.status === "False" && sandbox.message) return { reason: sandbox.reason ?? "", message: sandbox.message };
  return null;
}

function couldNotLook({ reason, message }: Problem): boolean {
  return SECRET_NOT_SYNCED.test(message) || (RUNTIME_AWAY.test(message) && !FROM_REGISTRY.has(reason));
}

function initFailure(name: string, { exitCode, message }: ContainerStateTerminated): string {
  const said = message?.trim();
  const mend = name === GATE_CONTAINER && exitCode !== EXIT_SIGTERM ? `; ${GATE_NEEDS}` : "";
  return `init container ${name} ended with ${exitCode}${said ? `: ${said}` : ""}${mend}`;
}

const NO_TIMES = { startedAtMs: null, finishedAtMs: null };

function endOf(pod: Pod, status: PodStatus, terminated: ContainerStateTerminated): End {
  const { exitCode } = terminated;
  const startedAtMs = time(terminated.startedAt);
  const base = {
    exitCode,
    // A container that never started carries the epoch.
    startedAtMs: startedAtMs && startedAtMs > 0 ? startedAtMs : null,
    finishedAtMs: time(terminated.finishedAt),
  };
  if (START_ERRORS.has(terminated.reason ?? "")) {
    return {
      ...base,
      startedAtMs: null,
      cause: "StartFailed",
      message: terminated.message ?? "the command could not be started",
    };
  }
  const disruption = disruptionOf(status, base.finishedAtMs);
  if (disruption) return { ...base, ...disruption };
  if (terminated.reason === "OOMKilled" && exitCode !== 0) {
    return { ...base, cause: "OOMKilled", message: "the container used more memory than its limit" };
  }
  if (endedByDeletion(pod, base.finishedAtMs)) {
    const message =
      base.finishedAtMs === null
        ? "somebody deleted the Pod, and nobody saw its container end"
        : `somebody deleted the Pod while its session ran; the container ended with exit code ${exitCode}`;
    return { ...base, cause: "PodDeleted", message };
  }
  if (exitCode === 0) return { ...base, cause: "Completed", message: "" };
  if (terminated.reason === UNSEEN.reason && exitCode === UNSEEN.exitCode) {
    const message = "nobody saw how the container ended; its node, or the node's container runtime, was started anew";
    return { ...base, cause: "NodeLost", message, exitCode: null };
  }
  const said = terminated.message?.trim();
  const text = `the container ended with exit code ${exitCode}${said ? `: ${said}` : ""}`;
  return { ...base, cause: exitCode === EXIT_SIGKILL ? "Killed" : "Failed", message: text };
}

/** An end during the grace of a deletion. The object of a last watch event, whose grace is 0, does not say any more. */
function endedByDeletion(pod: Pod, finishedAtMs: number | null): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds: grace } = pod.metadata;
  // kubelet has not seen an end of a container that was never made, and says 137 of a parked Pod that goes.
  if (finishedAtMs === null) return deletionTimestamp !== undefined;
  // The timestamp is the end of the grace.
  const overAtMs = time(deletionTimestamp);
  return overAtMs !== null && !!grace && finishedAtMs >= overAtMs - grace * SECOND_MS;
}

/**
 * Causes that the Pod's status names, apart from the container's exit code.
 * @param finishedAtMs when the container ended, where its node has seen that.
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
  // A node that tells how the container ended has answered: it was given a taint.
  if (target?.reason === BY_TAINT_MANAGER && finishedAtMs === null) return { cause: "NodeLost", message };
  if (target) return { cause: "Evicted", message };
  return null;
}

/**
 * Whether a disruption came when the container was over already: a finished Pod is kept for its logs, and may still be
 * thrown off its node. kubelet writes its own condition with the end that it caused, and so a little later.
 */
function isTooLate({ reason, lastTransitionTime }: Condition, finishedAtMs: number | null): boolean {
  const sinceMs = time(lastTransitionTime);
  if (reason === "TerminationByKubelet" || finishedAtMs === null || sinceMs === null) return false;
  return sinceMs > finishedAtMs + CLOCK_SKEW_MS;
}

/** A Pod that is over although its session container never said so: evicted before, or lost with its node. */
function endWithoutContainer({ metadata }: Pod, status: PodStatus, ran: boolean): End {
  const disruption = disruptionOf(status, null);
  if (disruption) return { ...NO_TIMES, ...disruption, exitCode: null };
  if (ran) {
    const message = status.message ?? `the Pod is ${status.phase} and nobody saw how its container ended`;
    return { ...NO_TIMES, cause: "NodeLost", message, exitCode: null };
  }
  if (metadata.deletionTimestamp) {
    const message = "somebody deleted the Pod before its session container started";
    return { ...NO_TIMES, cause: "PodDeleted", message, exitCode: null };
  }
  const failed = status.initContainerStatuses?.find(({ state }) => (state?.terminated?.exitCode ?? 0) !== 0);
  const message = failed?.state?.terminated
    ? initFailure(failed.name, failed.state.terminated)
    : (status.message ?? `the Pod is ${status.phase} and its session container never started`);
  return { ...NO_TIMES, cause: "StartFailed", message, exitCode: null };
}

/** The garbage collector's and the taint manager's mark on Pods of a node that is gone; the container may run on. */
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

/** The cache of one Environment's session Pods. What it says is never enough to destroy anything: read live first. */
export interface PodCache {
  get(name: string): Pod | undefined;
  /** This and `parked`: the same array until one of the Pods changes. */
  list(): readonly Pod[];
  /** Those with the label of free ones: few, however many run. */
  parked(): readonly Pod[];
  /** Those that were given this session, whatever became of them. */
  assignedTo(sessionId: string): readonly Pod[];
}
