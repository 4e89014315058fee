import type { Environment } from "../api/environment.ts";
import { FINALIZER, GROUP, KIND, PLURAL, VERSION } from "../api/names.ts";
import { isConflict, isInvalid, isNotFound, orNull } from "../kube/errors.ts";
import type { KubeObject, Resource } from "../kube/resource.ts";
import type { SessionContext } from "../protocol/context.ts";

/** The Environment as a resource of the API server. */
export const ENVIRONMENTS: Resource<Environment & KubeObject> = {
  group: GROUP,
  version: VERSION,
  plural: PLURAL,
  kind: KIND,
  namespaced: true,
};

type HoldContext = Pick<SessionContext, "kube" | "points" | "namespace" | "name" | "uid">;

/** So often a conflicting change of the finalizers is tried again with the object as it is then. */
const ATTEMPTS = 5;
/** The same for a patch whose test failed. What else makes an object invalid is mended by no repetition. */
const INVALID_ATTEMPTS = 2;

/**
 * The finalizer of an Environment: there from before its first claim until no claim is left, so that an idle Environment
 * can always be deleted, also with no operator running.
 */
export class EnvironmentFinalizer {
  readonly #context: HoldContext;
  #held: boolean | null = null;
  #changing: Promise<unknown> = Promise.resolve();

  constructor(context: HoldContext) {
    this.#context = context;
  }

  /** False: the finalizer is known to be gone, there is nothing to release. */
  get mayBeHeld(): boolean {
    return this.#held !== false;
  }

  /** Makes sure that the finalizer is there. False: the Environment is going or gone, nothing may be claimed for it. */
  hold(): Promise<boolean> {
    if (this.#held) return Promise.resolve(true);
    return this.#change(async () => {
      if (this.#held) return true;
      // Without an answer it may be there, or come to be: whoever releases has to look.
      this.#held = null;
      this.#held = await this.#write(true);
      return this.#held;
    });
  }

  /** Takes the finalizer away if `unused` still says so when the turn comes. */
  release(unused: () => boolean): Promise<void> {
    return this.#change(async () => {
      if (this.#held === false || !unused()) return;
      // From here on it may be gone: a claim that begins now waits until that is known, and puts it back.
      this.#held = null;
      await this.#write(false);
      this.#held = false;
    });
  }

  /** One change at a time: a hold that comes during a release finds the finalizer gone and puts it back. */
  #change<T>(act: () => Promise<T>): Promise<T> {
    const next = this.#changing.then(act, act);
    this.#changing = next.catch(() => {});
    return next;
  }

  /** Returns whether the Environment carries the finalizer now. */
  async #write(wanted: boolean): Promise<boolean> {
    const { kube, points, namespace, name, uid } = this.#context;
    for (let attempt = 1; ; attempt += 1) {
      const live = await orNull(points.run("environment.read", {}, () => kube.get(ENVIRONMENTS, { namespace, name })));
      if (live === null) return false;
      try {
        if (live.metadata.uid !== uid) return false;
        const finalizers = live.metadata.finalizers ?? [];
        if (finalizers.includes(FINALIZER) === wanted) return wanted;
        // The API server takes no new finalizer for an object that is being deleted.
        if (wanted && live.metadata.deletionTimestamp) return false;
        if (wanted) await this.#add(live.metadata.finalizers);
        else await this.#remove(live);
        return wanted;
      } catch (error) {
        if (isNotFound(error)) return false;
        const attempts = isConflict(error) ? ATTEMPTS : isInvalid(error) ? INVALID_ATTEMPTS : 1;
        if (attempt >= attempts) throw error;
      }
    }
  }

  /**
   * Not by resourceVersion, which every status of our own moves on just when work comes: only the list itself must be as it
   * was read. A test of null holds where there is no such field.
   */
  async #add(found: readonly string[] | undefined): Promise<void> {
    const { kube, points, namespace, name, uid } = this.#context;
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

  async #remove({ metadata: { resourceVersion, finalizers = [] } }: KubeObject): Promise<void> {
    const { kube, points, namespace, name } = this.#context;
    const kept = finalizers.filter((each) => each !== FINALIZER);
    const patch = { metadata: { resourceVersion, finalizers: kept } };
    await points.run("environment.release", {}, () =>
      kube.patch(ENVIRONMENTS, { namespace, name }, patch, { type: "merge" }),
    );
  }
}
