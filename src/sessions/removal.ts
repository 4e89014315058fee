import { isAlreadyExists } from "../kube/errors.ts";
import { type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import type { SessionContext } from "./context.ts";
import { renderJournal } from "./journal.ts";
import { deletePod } from "./perform.ts";

/**
 * Deletes a free Pod. Its slot is taken first, by creating the Secret of its name: a late actor cannot delete a Pod that
 * was just claimed, and nobody can claim a Pod that goes.
 * @returns false when somebody else has the slot; the Pod is left alone then.
 */
export async function removeParked(context: SessionContext, pod: Pod): Promise<boolean> {
  const name = pod.metadata.name ?? "";
  const lock = renderJournal(
    { name, namespace: context.namespace, environment: context.name },
    {
      use: "removal",
      environmentUid: context.uid,
      podUid: pod.metadata.uid ?? "",
      workId: "",
      sessionId: "",
      queuedAt: "",
      polledFromMs: 0,
      polledUntilMs: 0,
    },
    null,
  );
  try {
    const secret = await context.kube.create(SECRETS, lock);
    await finishRemoval(context, secret, pod.metadata.uid ?? "");
    return true;
  } catch (error) {
    if (isAlreadyExists(error)) return false;
    throw error;
  }
}

/** The second half of a removal, also one that an earlier process began: the Pod goes, then its lock. */
export async function finishRemoval(context: SessionContext, lock: Secret, podUid: string): Promise<void> {
  const name = lock.metadata.name ?? "";
  const pod = context.pods.get(name);
  await deletePod(context, name, (live) => live.metadata.uid !== podUid, pod ? graceOf(pod) : undefined);
  await context.kube.delete(
    SECRETS,
    { namespace: context.namespace, name },
    {
      ...(lock.metadata.uid === undefined ? {} : { uid: lock.metadata.uid }),
      ...(lock.metadata.resourceVersion === undefined ? {} : { resourceVersion: lock.metadata.resourceVersion }),
    },
  );
}

/** Nothing of a waiting Pod runs, so it needs no grace (0.4-1.1 s), unless it has containers besides the session's. */
function graceOf(pod: Pod): number | undefined {
  const alone =
    pod.spec.containers.length === 1 &&
    !pod.spec.initContainers?.some(({ restartPolicy }) => restartPolicy === "Always");
  return alone ? 0 : undefined;
}
