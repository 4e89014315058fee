import type { Environment } from "../api/environment.ts";
import { FINALIZER, GROUP, KIND, PLURAL, VERSION } from "../api/names.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import type { KubeObject, Resource } from "../kube/resource.ts";
import type { SessionContext } from "./context.ts";

/** The Environment as a resource of the API server. */
export const ENVIRONMENTS: Resource<Environment & KubeObject> = {
  group: GROUP,
  version: VERSION,
  plural: PLURAL,
  kind: KIND,
  namespaced: true,
};

/** So often a conflicting change of the finalizers is tried again with the object as it is then. */
const ATTEMPTS = 5;

/**
 * The finalizer of an Environment: there from before its first claim until no claim is left, so that an idle Environment
 * can always be deleted, also with no operator running.
 */
export class EnvironmentHold {
  readonly #context: Pick<SessionContext, "kube" | "namespace" | "name" | "uid">;
  #held: boolean | null = null;
  #changing: Promise<unknown> = Promise.resolve();

  constructor(context: Pick<SessionContext, "kube" | "namespace" | "name" | "uid">) {
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
    const { kube, namespace, name, uid } = this.#context;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const live = await kube.get(ENVIRONMENTS, { namespace, name });
        if (live.metadata.uid !== uid) return false;
        const finalizers = live.metadata.finalizers ?? [];
        if (finalizers.includes(FINALIZER) === wanted) return wanted;
        // The API server takes no new finalizer for an object that is being deleted.
        if (wanted && live.metadata.deletionTimestamp) return false;
        const changed = wanted ? [...finalizers, FINALIZER] : finalizers.filter((each) => each !== FINALIZER);
        const patch = { metadata: { resourceVersion: live.metadata.resourceVersion, finalizers: changed } };
        await kube.patch(ENVIRONMENTS, { namespace, name }, patch, { type: "merge" });
        return wanted;
      } catch (error) {
        if (isNotFound(error)) return false;
        if (!isConflict(error) || attempt >= ATTEMPTS) throw error;
      }
    }
  }
}
