import { ANNOTATION_API } from "../api/names.ts";
import type { Pod } from "../kube/resource.ts";
import { credentialOf } from "../pods/pod-gate.ts";
import { sessionContainerName } from "../pods/pod-state.ts";
import type { ClaimContext } from "../protocol/context.ts";
import type { WorkItem } from "../work/types.ts";

/**
 * What the program of this Pod is given to serve the item with, as it goes into the claim's Secret; null: the Pod takes
 * what is not there. The environment key is the one in use now: another one later changes nothing for this session.
 */
export function credentialFor(
  context: Pick<ClaimContext, "environmentKey">,
  pod: Pod,
  item: Pick<WorkItem, "secret">,
): string | null {
  const taken = credentialOf(pod, sessionContainerName(pod));
  return (taken === "EnvironmentKey" ? context.environmentKey() : item.secret) || null;
}

/**
 * Whether this Pod's program is told to ask the Work API that offered an item. One that was parked for another address must
 * not be given a key, or an item, of this one. Pods of a version that did not say it are trusted: they are being replaced.
 */
export function serves(pod: Pod, api: string): boolean {
  const told = pod.metadata.annotations?.[ANNOTATION_API];
  return told === undefined || told === api;
}
