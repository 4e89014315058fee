import { ofRuntimeClass } from "../api/isolation.ts";
import { unended } from "../core/text.ts";
import { IMAGE_PROBLEMS } from "../kube/objects.ts";
import type { Problem } from "../pods/pod-state.ts";

/** What limits capacity, if anything; the runtime turns it into a condition. */
export type CapacityProblem =
  | { readonly is: "quota"; readonly message: string }
  | { readonly is: "refused"; readonly message: string }
  | { readonly is: "unschedulable"; readonly message: string; readonly runtimeClass?: string | undefined }
  | { readonly is: "image"; readonly message: string }
  | { readonly is: "preparing"; readonly message: string }
  | { readonly is: "attach"; readonly message: string }
  | { readonly is: "volume"; readonly message: string }
  | null;

/** Fixes for problems that nodes report only in Events. */
const FIXES: Readonly<Record<string, string>> = {
  FailedCreatePodSandBox: "fix the template's securityContext, or the node's container runtime and network",
  FailedMount: "create the object that the volume refers to, or correct the template's volumes",
  FailedMapVolume: "create the object that the volume refers to, or correct the template's volumes",
  FailedAttachVolume: "fix the volume, or its driver on the node",
  NetworkNotReady: "fix the node's network plug-in",
};

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

/** The texts of containerd and CRI-O for a runtime that they are not configured for. */
const NO_RUNTIME = /no runtime for "[^"]*" is configured|failed to find runtime handler/;

/**
 * The capacity problem for a node's complaint in an Event.
 * @param runtimeClass the RuntimeClass of the Pods, if they have one
 */
export function wordsOfNode({ reason, message }: Problem, runtimeClass?: string): CapacityProblem {
  const fix = NO_RUNTIME.test(message)
    ? `install the runtime${ofRuntimeClass(runtimeClass)} on the node, or set the class's scheduling.nodeSelector to nodes that have it`
    : (FIXES[reason] ?? "check the Pod's node and its kubelet");
  return { is: "preparing", message: `${reason}: ${unended(message)}; ${fix}` };
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
