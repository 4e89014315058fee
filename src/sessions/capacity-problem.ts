import type { Problem } from "./pod-state.ts";

/** What stands in the way of capacity, if anything does; the runtime turns it into a condition. */
export type CapacityProblem =
  | { readonly is: "quota"; readonly message: string }
  | { readonly is: "refused"; readonly message: string }
  | { readonly is: "unschedulable"; readonly message: string }
  | { readonly is: "image"; readonly message: string }
  | { readonly is: "preparing"; readonly message: string }
  | null;

const IMAGE_PROBLEMS = new Set([
  "ErrImagePull",
  "ImagePullBackOff",
  "InvalidImageName",
  "ErrImageNeverPull",
  "ImageInspectError",
  "RegistryUnavailable",
]);

/** Of a Pod that did not get parked in time and does not say why. */
export const TOO_SLOW: CapacityProblem = {
  is: "preparing",
  message: "not within prepareTimeoutSeconds, and the node does not say why; raise it if it only takes longer",
};

/** kubelet's complaint about a Pod that is being prepared, as it stands in the way of capacity. */
export function capacityProblemOf({ reason, message }: Problem): CapacityProblem {
  // As it is said of a Pod that has ended.
  if (reason === "InitContainerFailed") return { is: "preparing", message };
  if (!IMAGE_PROBLEMS.has(reason)) return { is: "preparing", message: `${reason}: ${message}` };
  return { is: "image", message: message.replace(BACK_OFF, "") };
}

/** Pulls and pauses between them follow one another, with the same cause: what is shown must not change with them. */
const BACK_OFF = /^Back-off pulling image "[^"]*": (\w+: )?/;
