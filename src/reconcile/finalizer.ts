import type { Environment } from "../api/environment.ts";
import { FINALIZER, GROUP, KIND, PLURAL, VERSION } from "../api/names.ts";
import { isConflict, isInvalid, isNotFound, orNull } from "../kube/errors.ts";
import type { KubeObject, Resource } from "../kube/resource.ts";
import type { SessionContext } from "../protocol/context.ts";

/** The Environment as an API resource. */
export const ENVIRONMENTS: Resource<Environment & KubeObject> = {
  group: GROUP,
  version: VERSION,
  plural: PLURAL,
  kind: KIND,
  namespaced: true,
};

/** The Environment, and the client to change it with. */
export type FinalizerContext = Pick<SessionContext, "kube" | "points" | "namespace" | "name" | "uid">;

/** How often a conflicting change of the finalizers is tried, each time with a fresh read. */
const ATTEMPTS = 5;
/**
 * How often a patch with a failed test is tried. If the object is invalid for another reason, repeating does not help.
 */
const INVALID_ATTEMPTS = 2;

/**
 * The finalizer of an Environment. It is there from before the first claim until no claim is left, so an idle
 * Environment can always be deleted, even without a running operator.
 */
export class EnvironmentFinalizer {
  readonly #context: FinalizerContext;
  #held: boolean | null = null;
  #isHeld = false;
  #changing: Promise<unknown> = Promise.resolve();

  constructor(context: FinalizerContext) {
    this.#context = context;
  }

  /** False: the finalizer is known to be removed, so there is nothing to release. */
  get mayBeHeld(): boolean {
    return this.#held !== false;
  }

  /** Whether this process has begun to set the finalizer, and not to remove it since. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /**
   * Makes sure that the finalizer is set. Resolves to false if the Environment is deleted or being deleted; nothing may
   * be claimed for it then.
   */
  hold(): Promise<boolean> {
    this.#isHeld = true;
    if (this.#held) return Promise.resolve(true);
    return this.#change(async () => {
      if (this.#held) return true;
      // Until the API server answers, the finalizer may or may not be set, so `release` must check.
      this.#held = null;
      this.#held = (await write(this.#context, true)) !== "impossible";
      this.#isHeld = this.#held;
      return this.#held;
    });
  }

  /** Removes the finalizer, if `unused` still holds when this change gets its turn. */
  release(unused: () => boolean): Promise<void> {
    return this.#change(async () => {
      if (this.#held === false || !unused()) return;
      this.#isHeld = false;
      // From here on the finalizer may be gone. A claim that starts now waits for the outcome and sets it again.
      this.#held = null;
      await removeFinalizer(this.#context);
      this.#held = false;
    });
  }

  /** Serializes changes: a hold during a release finds the finalizer removed and sets it again. */
  #change<T>(act: () => Promise<T>): Promise<T> {
    const next = this.#changing.then(act, act);
    this.#changing = next.catch(() => {});
    return next;
  }
}

/** Removes the finalizer. Returns false if the Environment doesn't have it or no longer exists. */
export async function removeFinalizer(context: FinalizerContext): Promise<boolean> {
  return (await write(context, false)) === "written";
}

/** Returns `impossible` for a deleted Environment, and for one that is being deleted and can get no finalizer. */
async function write(context: FinalizerContext, wanted: boolean): Promise<"written" | "unchanged" | "impossible"> {
  const { kube, points, namespace, name, uid } = context;
  for (let attempt = 1; ; attempt += 1) {
    const live = await orNull(points.run("environment.read", {}, () => kube.get(ENVIRONMENTS, { namespace, name })));
    if (live === null) return "impossible";
    try {
      if (live.metadata.uid !== uid) return "impossible";
      const finalizers = live.metadata.finalizers ?? [];
      if (finalizers.includes(FINALIZER) === wanted) return "unchanged";
      // The API server accepts no new finalizer on an object that is being deleted.
      if (wanted && live.metadata.deletionTimestamp) return "impossible";
      if (wanted) await add(context, live.metadata.finalizers);
      else await remove(context, live);
      return "written";
    } catch (error) {
      if (isNotFound(error)) return "impossible";
      const attempts = isConflict(error) ? ATTEMPTS : isInvalid(error) ? INVALID_ATTEMPTS : 1;
      if (attempt >= attempts) throw error;
    }
  }
}

/**
 * Tests the list of finalizers, not the resourceVersion: the operator's own status writes change that just when work
 * arrives. A test for null passes if the field does not exist.
 */
async function add(
  { kube, points, namespace, name, uid }: FinalizerContext,
  found: readonly string[] | undefined,
): Promise<void> {
  const path = "/metadata/finalizers";
  const patch = [
    { op: "test", path: "/metadata/uid", value: uid },
    { op: "test", path, value: found ?? null },
    { op: "add", path, value: [...(found ?? []), FINALIZER] },
  ];
  await points.run("environment.hold", {}, () =>
    kube.patch(ENVIRONMENTS, { namespace, name }, patch, { type: "json" }),
  );
}

async function remove(
  { kube, points, namespace, name }: FinalizerContext,
  { metadata: { resourceVersion, finalizers = [] } }: KubeObject,
): Promise<void> {
  const kept = finalizers.filter((each) => each !== FINALIZER);
  const patch = { metadata: { resourceVersion, finalizers: kept } };
  await points.run("environment.release", {}, () =>
    kube.patch(ENVIRONMENTS, { namespace, name }, patch, { type: "merge" }),
  );
}
