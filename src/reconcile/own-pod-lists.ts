import type { Pod } from "../kube/resource.ts";
import { isOthers } from "../pods/own-pods.ts";
import type { Informer } from "../watch/informer.ts";

/**
 * Lists the Pods of an Environment that stand under one key of an index, in whichever cache: sorted out anew only when one of
 * them changed, and the same array until then.
 * @param of.uid the Environment's: those of another one of its name are not its own
 */
export function ownPodLists(
  caches: readonly Pick<Informer<Pod>, "byIndex">[],
  { index, key, uid }: { readonly index: string; readonly key: string; readonly uid: string },
): () => readonly Pod[] {
  let seen: readonly (readonly Pod[])[] = [];
  let own: readonly Pod[] = [];
  return () => {
    const now = caches.map((cache) => cache.byIndex(index, key));
    if (now.some((pods, at) => pods !== seen[at])) own = now.flat().filter((pod) => !isOthers(pod, uid));
    seen = now;
    return own;
  };
}
