import { ANNOTATION_API } from "../api/names.ts";
import type { Pod } from "../kube/resource.ts";
import { credentialOf } from "../pods/pod-gate.ts";
import { sessionContainerName } from "../pods/pod-state.ts";
import type { ClaimContext } from "../protocol/context.ts";
import type { WorkItem } from "../work/types.ts";

/**
 * The credential with which this Pod's program serves the item, as stored in the claim's Secret; null: the credential
 * that the Pod needs is missing. An environment key is the current one: a later key doesn't affect this session.
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
 * Whether this Pod's program uses the Work API that offered an item. A Pod that was parked for another address must not
 * get a key or an item of this one. Pods of older versions, which don't name an address, are trusted: they are being
 * replaced.
 */
export function serves(pod: Pod, api: string): boolean {
  const told = pod.metadata.annotations?.[ANNOTATION_API];
  return told === undefined || told === api;
}
