import type { Points } from "../core/points.ts";
import type { KubeClient } from "../kube/client.ts";
import { isConflict, isNotFound, orNull } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { isSessionPodOf } from "./own-pods.ts";

/** The caller, which names the points of its requests. */
type Deleter = "session" | "removal" | "retention";

/** The Environment whose session Pods are deleted, and the client for it. */
export interface PodOwner {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly kube: Pick<KubeClient, "get" | "delete">;
  readonly points: Points<`${Deleter}.${"read" | "delete"}-pod`>;
}

/**
 * Deletes a session Pod of this Environment, with its own grace period unless another is given. It reads the Pod live,
 * because a cache may be stale, and the delete names the Pod's UID. Returns the live Pod that must stay, or null when
 * the Pod is deleted, being deleted, or absent.
 * @param by the caller, which names the points of the two requests
 * @param how.asRead whether the delete also names the resourceVersion that was read: a conflict is thrown, and can be
 * retried
 */
export async function deletePod(
  context: PodOwner,
  { by, name, workId }: { by: Deleter; name: string; workId?: string },
  unless: (live: Pod) => boolean,
  how: { readonly graceSeconds?: number | undefined; readonly asRead?: (live: Pod) => boolean } = {},
): Promise<Pod | null> {
  const { kube, points, namespace } = context;
  const ref = { namespace, name };
  const about = { pod: name, ...(workId !== undefined && { workId }) };
  const read = () => orNull(points.run(`${by}.read-pod`, about, () => kube.get(PODS, ref)));
  const live = await read();
  if (live === null || live.metadata.deletionTimestamp) return null;
  if (!isSessionPodOf(live, context) || unless(live)) return live;
  const { uid, resourceVersion } = live.metadata;
  try {
    await points.run(`${by}.delete-pod`, { ...about, asks: { uid: uid ?? null } }, () =>
      kube.delete(PODS, ref, {
        ...(uid === undefined ? {} : { uid }),
        ...(how.asRead?.(live) && resourceVersion !== undefined ? { resourceVersion } : {}),
        ...(how.graceSeconds === undefined ? {} : { gracePeriodSeconds: how.graceSeconds }),
      }),
    );
  } catch (error) {
    if (isNotFound(error)) return null;
    // A conflict usually means another Pod of that name. But a server may also report a mere race, in which case the
    // Pod still exists.
    if (!isConflict(error) || (await read())?.metadata.uid === uid) throw error;
  }
  return null;
}

/**
 * Deletes a session Pod of this Environment as the cache shows it. The delete names UID and resourceVersion, so the API
 * server refuses it if anything changed since. This takes one request instead of a live read and a delete. Returns
 * false if the delete was refused; the caller must then read the Pod live.
 */
export async function deleteAsSeen(
  context: PodOwner,
  { by, name }: { by: "retention"; name: string },
  seen: Pod,
): Promise<boolean> {
  const { kube, points, namespace } = context;
  const { uid, resourceVersion } = seen.metadata;
  if (uid === undefined || resourceVersion === undefined || !isSessionPodOf(seen, context)) return false;
  try {
    await points.run(`${by}.delete-pod`, { pod: name, asks: { uid } }, () =>
      kube.delete(PODS, { namespace, name }, { uid, resourceVersion }),
    );
    return true;
  } catch (error) {
    if (isNotFound(error)) return true;
    if (isConflict(error)) return false;
    throw error;
  }
}
