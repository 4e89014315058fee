import type { Verdict } from "../api/conditions.ts";
import { ofRuntimeClass } from "../api/isolation.ts";
import { type DemandReadings, NONE_OF_OURS } from "../autoscale/demand.ts";
import type { Clock } from "../core/clock.ts";
import { lastLines, unended } from "../core/text.ts";
import { IMAGE_PROBLEMS, ORDINARY_WAITS } from "../kube/objects.ts";
import type { ContainerStatus, Deployment, Pod } from "../kube/resource.ts";
import { gateProblem } from "../pods/pod-state.ts";
import type { ScalerView } from "./scaler.ts";

/** The verdict on scaling. No message contains an age: it would change with the clock alone. */
export function scalingVerdict(
  view: ScalerView,
  readings: DemandReadings,
  parts: { readonly blockedReason: string | null; readonly clock: Clock },
): Verdict {
  const { decision, held, failure } = view;
  if (failure !== null) return { reason: "ScalingFailed", message: `Berth cannot scale the workers: ${failure}` };
  if (!decision) return { reason: "DemandUnread", message: "the operator has not read the demand yet" };
  if (decision.reason === "DemandUnknown" && parts.blockedReason === null) {
    return { reason: "DemandUnread", message: decision.message };
  }
  if (decision.reason === "DemandUnknown" || decision.reason === "DemandStale") {
    const message = `${parts.blockedReason ?? lastRead(readings, parts.clock)}; the number of workers does not change`;
    return { reason: "ReadingStale", message };
  }
  if (held !== null) return { reason: "ScaleDownHeld", message: `fewer workers are needed, but ${held}` };
  const isSilent = decision.reason === "WorkersBusy" && view.silent > 0;
  const isHeld = decision.reason === "BusyWorkerNotReady" || decision.reason === "SessionsRunning" || isSilent;
  if (isHeld && decision.wanted !== null && decision.wanted < decision.replicas) {
    return { reason: "ScaleDownHeld", message: `only ${decision.wanted} workers are needed, but ${decision.message}` };
  }
  return { reason: "ScalingFollowsDemand", message: decision.message };
}

function lastRead({ queue, running }: DemandReadings, clock: Clock): string {
  const at = (readMs: number) =>
    new Date(clock.now() - (clock.monotonic() - readMs)).toISOString().replace(/:\d\d\.\d+Z$/, "Z");
  if (!queue) return "the queue's statistics were never read";
  if (!running) return "running sessions were never counted";
  return running === NONE_OF_OURS || queue.readMs < running.readMs
    ? `the queue's statistics were last read at ${at(queue.readMs)}`
    : `running sessions were last counted at ${at(running.readMs)}`;
}

/**
 * The verdict on capacity: what keeps worker Pods from being created or from running, or that the maximum is reached.
 */
export function capacityVerdict(
  pods: readonly Pod[],
  deployments: readonly Deployment[],
  use: {
    readonly replicas: number;
    readonly max: number;
    readonly depth: number;
    /** Wall-clock time. */
    readonly nowMs: number;
    /** A worker of the current template has been ready. */
    readonly wasReady: boolean;
    /** What a worker waits for according to its node, with the fix; null: nothing is known. */
    readonly waitsFor: string | null;
  },
): Verdict {
  const refusal = deployments.map(failureOf).find((message) => message !== null);
  if (refusal) {
    return refusal.includes("exceeded quota")
      ? {
          reason: "QuotaExceeded",
          message: `the namespace's quota has no room for a worker: ${refusal}; raise the quota, or lower maxReplicas or the template's requests`,
        }
      : {
          reason: "PreparationFailing",
          message: `the API server refuses workers, although it accepted the template: ${refusal}; change the template, or the policy that refuses it`,
        };
  }
  const alive = pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  for (const find of [unschedulable, unpulled, unstarted, (pod: Pod) => crashing(pod, use.nowMs)]) {
    for (const pod of alive) {
      const verdict = find(pod);
      if (verdict) return verdict;
    }
  }
  if (use.waitsFor !== null) return { reason: "PreparationFailing", message: `workers do not run: ${use.waitsFor}` };
  if (use.depth > 0 && use.replicas >= use.max) {
    return {
      reason: "AtMaximum",
      message: `spec.workers.maxReplicas: all ${use.max} workers exist and more work waits; raise it to run more sessions at a time`,
    };
  }
  return use.wasReady
    ? { reason: "Available", message: "workers can be created and get ready" }
    : { reason: "CapacityUnchecked", message: "no worker of the current template has been ready yet" };
}

/** The ReplicaSet's message when it can't create Pods, which the Deployment repeats. */
function failureOf({ status }: Deployment): string | null {
  const condition = status?.conditions?.find(({ type, status: is }) => type === "ReplicaFailure" && is === "True");
  return condition ? (condition.message ?? condition.reason ?? "without a reason") : null;
}

function unschedulable(pod: Pod): Verdict | null {
  const gated = gateProblem(pod);
  if (gated !== null)
    return { reason: "SchedulingGated", message: `a worker ${gated}; check the controllers that remove them` };
  const { spec, status } = pod;
  const scheduled = status?.conditions?.find(({ type }) => type === "PodScheduled");
  if (scheduled?.status !== "False" || scheduled.reason === "SchedulingGated") return null;
  const words = unended(scheduled.message ?? "");
  return {
    reason: "Unschedulable",
    message: `no node takes a worker${ofRuntimeClass(spec.runtimeClassName)}: ${words}; add nodes, or change the template's requests, selectors and tolerations`,
  };
}

function unpulled(pod: Pod): Verdict | null {
  const waiting = waitingOf(pod, (reason) => IMAGE_PROBLEMS.has(reason));
  if (!waiting) return null;
  return {
    reason: "ImagePullFailing",
    message: `${unended(waiting)}; correct the image's name or its imagePullSecrets`,
  };
}

function unstarted(pod: Pod): Verdict | null {
  // Crash loops have their own rule.
  const waiting = waitingOf(pod, (reason) => !ORDINARY_WAITS.has(reason) && reason !== "CrashLoopBackOff");
  if (!waiting) return null;
  return {
    reason: "PreparationFailing",
    message: `workers do not run: ${unended(waiting)}; read the logs of the workers' Pods`,
  };
}

function crashing(pod: Pod, nowMs: number): Verdict | null {
  const loop = crashLoop(pod, nowMs);
  return loop === null
    ? null
    : {
        reason: "PreparationFailing",
        message: `workers do not run: ${unended(loop)}; read the logs of the workers' Pods`,
      };
}

/** The message of a container that waits for such a reason. */
function waitingOf({ status }: Pod, isOne: (reason: string) => boolean): string | null {
  const all = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  for (const { name, state } of all) {
    const { reason, message } = state?.waiting ?? {};
    if (reason && isOne(reason)) return `container ${name} waits in ${reason}${words(message)}`;
  }
  return null;
}

/** Removes the Pod's name from the kubelet's messages: otherwise the verdict would change with every Pod. */
function words(message: string | undefined): string {
  return message === undefined
    ? ""
    : `: ${message.replaceAll(/ pod=\S+/g, "").replaceAll(/_[a-z0-9-]+\([0-9a-f-]{36}\)/g, "")}`;
}

/** Restarts that indicate a crash loop; a single crash is no fault of the template. */
const RESTARTS_OF_A_LOOP = 2;

/** A program that has run this long is not in a crash loop, unless its previous run lasted as long. */
const STEADY_MS = 60_000;

/** A program has recovered when it has run this many times longer than its previous run. */
const RECOVERY = 2;

/**
 * After a run of this length, the kubelet restarts a program at once and resets its back-off (twice the longest
 * back-off).
 */
const FORGOTTEN_MS = 600_000;

/**
 * Describes a container that ends repeatedly; null: the Pod has none. The message is the same while the container waits
 * for its next start, runs briefly, or has just ended: a person sees one fault until it has run for long enough.
 * @param nowMs wall-clock time
 */
export function crashLoop({ status }: Pod, nowMs: number): string | null {
  const inits = (status?.initContainerStatuses ?? []).filter(({ state }) => state?.terminated?.exitCode !== 0);
  for (const container of [...inits, ...(status?.containerStatuses ?? [])]) {
    if (!isLooping(container, nowMs)) continue;
    const end = lastEnd(container);
    const how = end ? `, last with exit code ${end.exitCode}${lastLines(end.message)}` : "";
    return `container ${container.name} keeps crashing (CrashLoopBackOff)${how}`;
  }
  return null;
}

function isLooping(container: ContainerStatus, nowMs: number): boolean {
  const { state, restartCount = 0 } = container;
  if (state?.waiting?.reason === "CrashLoopBackOff") return true;
  const end = lastEnd(container);
  if (restartCount < RESTARTS_OF_A_LOOP || !end) return false;
  const ranMs = between(end.startedAt, end.finishedAt) ?? 0;
  if (ranMs >= FORGOTTEN_MS) return false;
  if (!state?.running) return state?.terminated !== undefined;
  const runsMs = between(state.running.startedAt, nowMs);
  // A running container without a start time proves nothing.
  return runsMs !== null && runsMs < Math.min(FORGOTTEN_MS, Math.max(STEADY_MS, RECOVERY * ranMs));
}

function lastEnd({ state, lastState }: ContainerStatus) {
  return state?.terminated ?? lastState?.terminated;
}

/** Null if either time is unknown. For a container that never ran, the runtime reports the epoch as its start. */
function between(from: string | null | undefined, to: string | number | null | undefined): number | null {
  const toMs = typeof to === "number" ? to : Date.parse(to ?? "");
  const fromMs = Date.parse(from ?? "");
  return Number.isNaN(toMs - fromMs) || fromMs === 0 ? null : toMs - fromMs;
}
