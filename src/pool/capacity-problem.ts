import { IMAGE_PROBLEMS } from "../kube/objects.ts";
import type { Problem } from "../pods/pod-state.ts";

/** What limits capacity, if anything; the runtime turns it into a condition. */
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
