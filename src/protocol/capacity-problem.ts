import type { Verdict } from "../api/conditions.ts";
import { ofRuntimeClass } from "../api/isolation.ts";
import { unended } from "../core/text.ts";
import { IMAGE_PROBLEMS } from "../kube/objects.ts";
import type { Problem } from "../pods/pod-state.ts";

/** What limits capacity, if anything. */
export type CapacityProblem =
  | { readonly is: "quota"; readonly message: string }
  | { readonly is: "refused"; readonly message: string }
  | { readonly is: "unschedulable"; readonly message: string; readonly runtimeClass?: string | undefined }
  | { readonly is: "gated"; readonly message: string }
  | { readonly is: "image"; readonly message: string }
  | { readonly is: "preparing"; readonly message: string }
  | { readonly is: "attach"; readonly message: string }
  | { readonly is: "volume"; readonly message: string }
  | null;

/**
 * The problem of a Pod that was not parked in time although its node reported no complaint.
 * @param events what the operator knows of the Pod's Events; `command` shows them if the operator may not list them
 */
export function unheard(events: "unread" | "read" | { readonly command: string }): CapacityProblem {
  const message = (why: string) => ({ is: "preparing", message: `not within prepareTimeoutSeconds${why}` }) as const;
  if (events === "unread") return message("; raise it if Pods only need more time");
  if (events === "read") return message(", and the node reports no reason; raise it if Pods only need more time");
  return message(
    `, and the operator has no permission to list Events, which may have the reason; run \`${events.command}\`, or raise prepareTimeoutSeconds if Pods only need more time`,
  );
}

/** The capacity problem for the kubelet's complaint about a Pod in preparation. */
export function capacityProblemOf({ reason, message }: Problem): CapacityProblem {
  // The same text as for a Pod that has ended.
  if (reason === "InitContainerFailed") return { is: "preparing", message };
  if (!IMAGE_PROBLEMS.has(reason)) return { is: "preparing", message: `${reason}: ${message}` };
  return { is: "image", message: message.replace(BACK_OFF, "") };
}

/** Pulls and the pauses between them alternate with the same cause: the message must not change with them. */
const BACK_OFF = /^Back-off pulling image "[^"]*": (\w+: )?/;

/**
 * The verdict on capacity: what blocks it, or that maxConcurrent is reached while work waits.
 * @param use `failing`: the failing step that is reported, which a larger maximum would not fix; null: none. `wasReady`: a
 * Pod of the current template has been ready
 */
export function capacityVerdict(
  problem: CapacityProblem,
  use: { busy: number; max: number; depth: number; failing: string | null; wasReady: boolean },
): Verdict {
  switch (problem?.is) {
    case undefined:
      if (use.depth > 0 && use.busy >= use.max) {
        const message = use.failing
          ? `all ${use.max} Pods are in use and more work waits: ${use.failing}`
          : `spec.sessions.maxConcurrent: all ${use.max} Pods are in use and more work waits; raise it to run more sessions at a time`;
        return { reason: "AtMaximum", message };
      }
      return use.wasReady
        ? { reason: "Available", message: "Pods can be created and get ready" }
        : { reason: "CapacityUnchecked", message: "no Pod of the current template has been ready yet" };
    case "quota":
      return {
        reason: "QuotaExceeded",
        message: `the namespace's quota has no room for a Pod: ${problem.message}; raise the quota, or lower maxConcurrent, warm or the template's requests`,
      };
    case "unschedulable":
      return {
        reason: "Unschedulable",
        message: `no node takes a Pod${ofRuntimeClass(problem.runtimeClass)}: ${unended(problem.message)}; add nodes, or change the template's requests, selectors and tolerations`,
      };
    case "gated":
      return { reason: "SchedulingGated", message: `a Pod ${problem.message}; check the controllers that remove them` };
    case "image":
      return {
        reason: "ImagePullFailing",
        message: `${unended(problem.message)}; correct the image's name or its imagePullSecrets`,
      };
    case "refused":
      return {
        reason: "PreparationFailing",
        message: `the API server refuses Pods, although it accepted the template: ${unended(problem.message)}; change the template, or the policy that refuses it`,
      };
    case "attach":
      return { reason: "AttachFailing", message: `cannot attach to waiting Pods: ${problem.message}` };
    case "volume":
      return {
        reason: "PreparationFailing",
        message: `volumes of sessions are not available: ${unended(problem.message)}`,
      };
    case "preparing":
      return { reason: "PreparationFailing", message: `Pods do not get ready: ${unended(problem.message)}` };
    default:
      return problem satisfies never;
  }
}
