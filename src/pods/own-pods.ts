import { LABEL_ENVIRONMENT, LABEL_ROLE } from "../api/names.ts";
import type { Pod } from "../kube/resource.ts";

/**
 * Whether a Pod is a session Pod of this Environment. A record of a claim says so of any Pod: whoever may create Secrets
 * could name one of somebody else, and have it marked or deleted by an operator that may do both. Its controller is enough,
 * since labels get lost by a slip of somebody's, and a session must not count as over for that; labels are, for an orphan.
 */
export function isSessionPodOf(pod: Pod, environment: { readonly name: string; readonly uid: string }): boolean {
  const owner = controllerOf(pod);
  if (owner !== undefined) return owner === environment.uid;
  const { [LABEL_ROLE]: role, [LABEL_ENVIRONMENT]: name } = pod.metadata.labels ?? {};
  return role === "session" && name === environment.name;
}

/** Whether another object than the one of this uid is the Pod's controller. An orphan is nobody else's. */
export function isOthers(pod: Pod, uid: string): boolean {
  const owner = controllerOf(pod);
  return owner !== undefined && owner !== uid;
}

/** The uid of the object that is the Pod's controller. */
function controllerOf({ metadata }: Pod): string | undefined {
  // Asked of every Pod whenever one changes.
  for (const { controller, uid } of metadata.ownerReferences ?? []) if (controller) return uid;
  return undefined;
}
