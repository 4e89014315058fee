import { LABEL_ENVIRONMENT, LABEL_ROLE, LABEL_TEMPLATE_HASH } from "../api/names.ts";
import type { Pod } from "../kube/resource.ts";

/**
 * Whether a Pod is a session Pod of this Environment. A claim's record names any Pod: anyone who may create Secrets
 * could name a foreign Pod and have the operator mark or delete it. The controller reference alone suffices, since a
 * label removed by mistake must not end a session. For an orphan, the labels decide.
 */
export function isSessionPodOf(pod: Pod, environment: { readonly name: string; readonly uid: string }): boolean {
  const owner = controllerOf(pod);
  if (owner !== undefined) return owner === environment.uid;
  const { [LABEL_ROLE]: role, [LABEL_ENVIRONMENT]: name } = pod.metadata.labels ?? {};
  return role === "session" && name === environment.name;
}

/** Whether an object with another uid controls the Pod. An orphan belongs to no other object. */
export function isOthers(pod: Pod, uid: string): boolean {
  const owner = controllerOf(pod);
  return owner !== undefined && owner !== uid;
}

/** The hash of the template that the Pod was made from; empty: its label is missing. */
export function templateHashOf({ metadata }: Pod): string {
  return metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "";
}

/** The uid of the Pod's controller. */
function controllerOf({ metadata }: Pod): string | undefined {
  // A loop instead of find(): this runs for every Pod whenever one changes.
  for (const { controller, uid } of metadata.ownerReferences ?? []) if (controller) return uid;
  return undefined;
}
