import { ANNOTATION_SESSION_ID, ANNOTATION_WORK_ID } from "../../../../src/api/names.ts";
import type { Pod } from "../../../../src/kube/resource.ts";
import { readPodState } from "../../../../src/pods/pod-state.ts";

/** Whether the container of this Pod's session runs, according to the API server. */
export function runningSession(pod: Pod): boolean {
  return workOf(pod) !== undefined && readPodState(pod).is === "running";
}

export function workOf({ metadata }: Pod): string | undefined {
  return metadata.annotations?.[ANNOTATION_WORK_ID];
}

export function sessionOf({ metadata }: Pod): string | undefined {
  return metadata.annotations?.[ANNOTATION_SESSION_ID];
}
