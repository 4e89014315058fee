import { unended } from "../core/text.ts";
import type { Problem } from "../pods/pod-state.ts";

/** What stands in the way of capacity, if anything does; the runtime turns it into a condition. */
export type CapacityProblem =
  | { readonly is: "quota"; readonly message: string }
  | { readonly is: "refused"; readonly message: string }
  | { readonly is: "unschedulable"; readonly message: string }
  | { readonly is: "image"; readonly message: string }
  | { readonly is: "preparing"; readonly message: string }
  | { readonly is: "volume"; readonly message: string }
  | null;

const IMAGE_PROBLEMS = new Set([
  "ErrImagePull",
  "ImagePullBackOff",
  "InvalidImageName",
  "ErrImageNeverPull",
  "ImageInspectError",
  "RegistryUnavailable",
]);

/** What to do about what nodes complain of in Events alone. */
const MENDS: Readonly<Record<string, string>> = {
  FailedCreatePodSandBox: "mend the template's securityContext, or the node's container runtime and network",
  FailedMount: "make what the volume refers to, or mend the template's volumes",
  FailedMapVolume: "make what the volume refers to, or mend the template's volumes",
  FailedAttachVolume: "mend the volume, or its driver on the node",
  NetworkNotReady: "mend the node's network plug-in",
};

/**
 * A Pod did not get parked in time, and no complaint of its node is known.
 * @param events what the operator knows of the Pod's Events; `command` shows them where the operator may not list them
 */
export function unheard(events: "unread" | "read" | { readonly command: string }): CapacityProblem {
  const message = (why: string) => ({ is: "preparing", message: `not within prepareTimeoutSeconds${why}` }) as const;
  if (events === "unread") return message("; raise it if it only takes longer");
  if (events === "read") return message(", and the node does not say why; raise it if it only takes longer");
  return message(
    `, and the operator may not list Events, where the node may say why: see \`${events.command}\`; raise prepareTimeoutSeconds if it only takes longer`,
  );
}

/** A node's complaint in an Event, as it stands in the way of capacity. */
export function wordsOfNode({ reason, message }: Problem): CapacityProblem {
  const mend = MENDS[reason] ?? "look at the Pod's node and its kubelet";
  return { is: "preparing", message: `${reason}: ${unended(message)}; ${mend}` };
}

/** kubelet's complaint about a Pod that is being prepared, as it stands in the way of capacity. */
export function capacityProblemOf({ reason, message }: Problem): CapacityProblem {
  // As it is said of a Pod that has ended.
  if (reason === "InitContainerFailed") return { is: "preparing", message };
  if (!IMAGE_PROBLEMS.has(reason)) return { is: "preparing", message: `${reason}: ${message}` };
  return { is: "image", message: message.replace(BACK_OFF, "") };
}

/** Pulls and pauses between them follow one another, with the same cause: what is shown must not change with them. */
const BACK_OFF = /^Back-off pulling image "[^"]*": (\w+: )?/;
