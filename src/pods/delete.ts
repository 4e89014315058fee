import type { Points } from "../core/points.ts";
import type { KubeClient } from "../kube/client.ts";
import { isConflict, isNotFound, orNull } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { isSessionPodOf } from "./own-pods.ts";

/** Whose deletion it is: names the points of its requests. */
type Deleter = "session" | "removal" | "retention";

/** The Environment whose session Pods are deleted, and the way to the API server. */
export interface PodOwner {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly kube: Pick<KubeClient, "get" | "delete">;
  readonly points: Points<`${Deleter}.${"read" | "delete"}-pod`>;
}

/**
 * Deletes a session Pod of this Environment, with its own grace unless another is given. Never on a cache's word: it is
 * read live, and the delete names its UID. Returns the state that spoke against it, or null when the Pod is deleted, going
 * or gone.
 * @param by whose points the two requests are
 */
export async function deletePod(
  context: PodOwner,
  { by, name, workId }: { by: Deleter; name: string; workId?: string },
  unless: (live: Pod) => boolean,
  graceSeconds?: number,
): Promise<Pod | null> {
  const { kube, points, namespace } = context;
  const ref = { namespace, name };
  const about = { pod: name, ...(workId !== undefined && { workId }) };
  const read = () => orNull(points.run(`${by}.read-pod`, about, () => kube.get(PODS, ref)));
  const live = await read();
  if (live === null || live.metadata.deletionTimestamp) return null;
  if (!isSessionPodOf(live, context) || unless(live)) return live;
  const { uid } = live.metadata;
  try {
    await points.run(`${by}.delete-pod`, { ...about, asks: { uid: uid ?? null } }, () =>
      kube.delete(PODS, ref, {
        ...(uid === undefined ? {} : { uid }),
        ...(graceSeconds === undefined ? {} : { gracePeriodSeconds: graceSeconds }),
      }),
    );
  } catch (error) {
    if (isNotFound(error)) return null;
    // Another one of that name is not the one we meant. But a server may say so of a mere race, and then the Pod stands.
    if (!isConflict(error) || (await read())?.metadata.uid === uid) throw error;
  }
  return null;
}

/**
 * Deletes a session Pod of this Environment as the cache shows it: the delete names its UID and its resourceVersion, so the
 * API server refuses it where anything at all has changed since. One request in the place of a live read and a delete.
 * False: it was refused, and who wants it gone has to read it live.
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
