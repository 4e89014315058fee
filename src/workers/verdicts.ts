import type { ConditionReason } from "../api/condition-reasons.ts";
import { type DemandReadings, NONE_OF_OURS } from "../autoscale/demand.ts";
import type { Clock } from "../core/clock.ts";
import { unended } from "../core/text.ts";
import type { Deployment, Pod } from "../kube/resource.ts";
import { crashLoop } from "./crash-loop.ts";
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
  parts: { readonly hindrance: string | null; readonly clock: Clock },
): Verdict {
  const { decision, held, failure } = view;
  if (failure !== null) return { reason: "ScalingFailed", message: `the workers could not be scaled: ${failure}` };
  if (!decision) return { reason: "DemandUnread", message: "the demand was not read yet" };
  if (decision.reason === "DemandUnknown" && parts.hindrance === null) {
    return { reason: "DemandUnread", message: decision.message };
  }
  if (decision.reason === "DemandUnknown" || decision.reason === "DemandStale") {
    const message = `${parts.hindrance ?? lastRead(readings, parts.clock)}; the number of workers stays what it is`;
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
