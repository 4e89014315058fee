import type { ConditionReason } from "../api/condition-reasons.ts";
import { type DemandReadings, NONE_OF_OURS } from "../autoscale/demand.ts";
import type { Clock } from "../core/clock.ts";
import { unended } from "../core/text.ts";
import type { ContainerStatus, Deployment, Pod } from "../kube/resource.ts";
import type { ScalerView } from "./scaler.ts";

/** A reason of a condition, with its message. */
export interface Verdict {
  readonly reason: ConditionReason;
  readonly message: string;
}

const PULL_FAULTS = new Set(["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"]);
const START_FAULTS = new Set(["CreateContainerConfigError", "CreateContainerError", "RunContainerError"]);

/** What is said of scaling. No message says how old something is: it would be written anew by the clock. */
export function scalingVerdict(
  view: ScalerView,
  readings: DemandReadings,
  parts: { readonly blockedReason: string | null; readonly clock: Clock },
): Verdict {
  const { decision, held, failure } = view;
  if (failure !== null) return { reason: "ScalingFailed", message: `the workers could not be scaled: ${failure}` };
  if (!decision) return { reason: "DemandUnread", message: "the demand was not read yet" };
  if (decision.reason === "DemandUnknown" && parts.blockedReason === null) {
    return { reason: "DemandUnread", message: decision.message };
  }
  if (decision.reason === "DemandUnknown" || decision.reason === "DemandStale") {
    const message = `${parts.blockedReason ?? lastRead(readings, parts.clock)}; the number of workers stays what it is`;
    return { reason: "ReadingStale", message };
  }
  if (held !== null) return { reason: "ScaleDownHeld", message: `fewer workers are wanted: ${held}` };
  const isSilent = decision.reason === "WorkersBusy" && view.silent > 0;
  const isHeld = decision.reason === "BusyWorkerNotReady" || decision.reason === "SessionsRunning" || isSilent;
  if (isHeld && decision.wanted !== null && decision.wanted < decision.replicas) {
    return { reason: "ScaleDownHeld", message: `${decision.wanted} workers are wanted: ${decision.message}` };
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

/** What is said of capacity: what keeps worker Pods from being made or from running, or that the maximum is reached. */
export function capacityVerdict(
  pods: readonly Pod[],
  deployments: readonly Deployment[],
  use: {
    readonly replicas: number;
    readonly max: number;
    readonly depth: number;
    /** The wall clock's time. */
    readonly nowMs: number;
  },
): Verdict {
  const refusal = deployments.map(failureOf).find((message) => message !== null);
  if (refusal) {
    return refusal.includes("exceeded quota")
      ? {
          reason: "QuotaExceeded",
          message: `no room for a worker: ${refusal}; raise the quota, or lower maxReplicas or the template's requests`,
        }
      : { reason: "PreparationFailing", message: `workers are refused although the template was accepted: ${refusal}` };
  }
  const alive = pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  for (const find of [unschedulable, unpulled, unstarted, (pod: Pod) => crashing(pod, use.nowMs)]) {
    for (const pod of alive) {
      const verdict = find(pod);
      if (verdict) return verdict;
    }
  }
  if (use.depth > 0 && use.replicas >= use.max) {
    return {
      reason: "AtMaximum",
      message: `all ${use.max} workers of maxReplicas are there and more work waits: raise it to serve more at a time`,
    };
  }
  return { reason: "Available", message: "workers can be made and get ready" };
}

/** The ReplicaSet's words when it cannot make Pods; they come up to the Deployment. */
function failureOf({ status }: Deployment): string | null {
  const condition = status?.conditions?.find(({ type, status: is }) => type === "ReplicaFailure" && is === "True");
  return condition ? (condition.message ?? condition.reason ?? "for no reason given") : null;
}

function unschedulable({ status }: Pod): Verdict | null {
  const scheduled = status?.conditions?.find(({ type }) => type === "PodScheduled");
  if (scheduled?.status !== "False" || scheduled.reason !== "Unschedulable") return null;
  const words = unended(scheduled.message ?? "");
  return {
    reason: "Unschedulable",
    message: `no node takes a worker: ${words}; add nodes, or mend the template's requests, selectors and tolerations`,
  };
}

function unpulled(pod: Pod): Verdict | null {
  const waiting = waitingOf(pod, PULL_FAULTS);
  if (!waiting) return null;
  return { reason: "ImagePullFailing", message: `${unended(waiting)}; mend the image's name or its imagePullSecrets` };
}

function unstarted(pod: Pod): Verdict | null {
  const waiting = waitingOf(pod, START_FAULTS);
  if (!waiting) return null;
  return {
    reason: "PreparationFailing",
    message: `workers do not run: ${unended(waiting)}; look at the logs of the worker's Pods`,
  };
}

function crashing(pod: Pod, nowMs: number): Verdict | null {
  const loop = crashLoop(pod, nowMs);
  return loop === null
    ? null
    : { reason: "PreparationFailing", message: `workers do not run: ${loop}; look at the logs of the worker's Pods` };
}

/** The words of a container that waits for one of these reasons. */
function waitingOf({ status }: Pod, reasons: ReadonlySet<string>): string | null {
  const all = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  for (const { name, state } of all) {
    const { reason, message } = state?.waiting ?? {};
    if (reason && reasons.has(reason)) return `container ${name} waits in ${reason}${words(message)}`;
  }
  return null;
}

/** kubelet names the Pod in some of its words; the message would change with every Pod that is looked at. */
function words(message: string | undefined): string {
  return message === undefined
    ? ""
    : `: ${message.replaceAll(/ pod=\S+/g, "").replaceAll(/_[a-z0-9-]+\([0-9a-f-]{36}\)/g, "")}`;
}

/** A program that was started so often crashes again and again; one crash is no fault of the template's. */
const RESTARTS_OF_A_LOOP = 2;

/** One that has run so long does not, unless it ran for as long before it ended the last time. */
const STEADY_MS = 60_000;

/** A program has recovered when it has run so many times longer than it did the last time. */
const RECOVERY = 2;

/** kubelet starts a program at once that ran for so long, and forgets what was before (twice its longest back-off). */
const FORGOTTEN_MS = 600_000;

/**
 * What is said of a container that ends again and again; null: none of the Pod's does. The same words while it waits for
 * its next start, runs for a moment and has just ended: to a person that is one fault, until it has run for long enough.
 * @param nowMs the wall clock's time.
 */
export function crashLoop({ status }: Pod, nowMs: number): string | null {
  const inits = (status?.initContainerStatuses ?? []).filter(({ state }) => state?.terminated?.exitCode !== 0);
  for (const container of [...inits, ...(status?.containerStatuses ?? [])]) {
    if (!isLooping(container, nowMs)) continue;
    const { exitCode } = lastEnd(container) ?? {};
    const how = exitCode === undefined ? "" : `, last with exit code ${exitCode}`;
    return `container ${container.name} ends again and again (CrashLoopBackOff)${how}`;
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
  // One whose start nobody tells says nothing.
  return runsMs !== null && runsMs < Math.min(FORGOTTEN_MS, Math.max(STEADY_MS, RECOVERY * ranMs));
}

function lastEnd({ state, lastState }: ContainerStatus) {
  return state?.terminated ?? lastState?.terminated;
}

/** Null when one of the two is not known: of a container that never ran the runtime says that it began with the epoch. */
function between(from: string | null | undefined, to: string | number | null | undefined): number | null {
  const toMs = typeof to === "number" ? to : Date.parse(to ?? "");
  const fromMs = Date.parse(from ?? "");
  return Number.isNaN(toMs - fromMs) || fromMs === 0 ? null : toMs - fromMs;
}
