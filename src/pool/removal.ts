import { LABEL_PHASE } from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { errorText } from "../core/errors.ts";
import { isAlreadyExists, isConflict, isNotFound, orNull } from "../kube/errors.ts";
import { type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import { deletePod } from "../pods/delete.ts";
import type { SessionContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import { readJournal, renderJournal } from "../protocol/journal.ts";

/** A Pod on its way out, until it is deleted and its slot is free of our lock. */
interface Removal {
  readonly podUid: string;
  /** The Secret that holds its slot; null while it may have to be created. */
  lock: Secret | null;
  readonly backoff: Backoff;
  /** Monotonic; not before. Infinity while it is being tried. */
  dueMs: number;
}

export type RemovalResult =
  | "removed"
  /** Somebody else has the slot, or the Pod is another one than was to go: it is left alone. */
  | "taken"
  /** Not yet; it is tried again until it is done. */
  | "failed";

/**
 * Deletes free Pods. The slot is taken first, by creating the Secret of the Pod's name: a late actor cannot delete a Pod
 * that was just claimed, and nobody can claim a Pod that goes. What was begun is brought to its end, so that no lock is
 * left behind.
 */
export class Removals {
  readonly #context: SessionContext;
  readonly #onForeignSlot: (secret: Secret) => void;
  readonly #begun = new Map<string, Removal>();

  constructor(options: { context: SessionContext; onForeignSlot: (secret: Secret) => void }) {
    this.#context = options.context;
    this.#onForeignSlot = options.onForeignSlot;
  }

  /** Whether the removal of this Pod was begun and is not done. */
  has(name: string): boolean {
    return this.#begun.has(name);
  }

  get size(): number {
    return this.#begun.size;
  }

  /** Names of the Pods whose removal was begun and is not done. */
  names(): IterableIterator<string> {
    return this.#begun.keys();
  }

  /** When (monotonic) the next removal that failed is due; null when there is none. */
  get nextMs(): number | null {
    const next = Math.min(...[...this.#begun.values()].map(({ dueMs }) => dueMs));
    return Number.isFinite(next) ? next : null;
  }

  remove(pod: Pod): Promise<RemovalResult> {
    const name = pod.metadata.name ?? "";
    return this.#attempt(name, this.#begin(name, pod.metadata.uid ?? "", null));
  }

  /** Takes up a removal that an earlier process began. */
  adopt(lock: Secret, podUid: string): void {
    this.#begin(lock.metadata.name ?? "", podUid, lock);
  }

  /** Tries again what failed and is due; by name. */
  retryDue(): [name: string, result: Promise<RemovalResult>][] {
    const nowMs = this.#context.clock.monotonic();
    const due = [...this.#begun].filter(([, { dueMs }]) => dueMs <= nowMs);
    return due.map(([name, removal]) => [name, this.#attempt(name, removal)]);
  }

  #begin(name: string, podUid: string, lock: Secret | null): Removal {
    const { timing, random, clock } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    const removal = { podUid, lock, backoff, dueMs: clock.monotonic() };
    this.#begun.set(name, removal);
    return removal;
  }

  async #attempt(name: string, removal: Removal): Promise<RemovalResult> {
    removal.dueMs = Number.POSITIVE_INFINITY;
    try {
      removal.lock ??= await this.#takeSlot(name, removal.podUid);
      const isGone = removal.lock !== null && (await this.#finish(name, removal.lock, removal.podUid));
      // What took the slot may be a removal itself, which was taken up meanwhile.
      if (this.#begun.get(name) === removal) this.#begun.delete(name);
      this.#context.failing.succeeded("delete-pod");
      return isGone ? "removed" : "taken";
    } catch (error) {
      removal.dueMs = this.#context.clock.monotonic() + removal.backoff.next();
      if (isStepFailure(error)) this.#context.failing.failed("delete-pod", { error, name });
      this.#context.logger.warn({ pod: name, error: errorText(error) }, "a free Pod could not be removed yet");
      return "failed";
    }
  }

  /** Null: somebody else has it. */
  async #takeSlot(name: string, podUid: string): Promise<Secret | null> {
    const { kube, points, namespace, name: environment, uid: environmentUid } = this.#context;
    const journal = { use: "removal", environmentUid, podUid, ...NO_ITEM } as const;
    try {
      const lock = renderJournal({ name, namespace, environment }, journal, null);
      return await points.run("removal.lock", { pod: name }, () => kube.create(SECRETS, lock));
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
    const secret = await points.run("removal.read-lock", { pod: name }, () => kube.get(SECRETS, { namespace, name }));
    const found = readJournal(secret);
    // A creation of ours whose answer was lost, or a removal that another process began.
    if (found?.use === "removal" && found.podUid === podUid) return secret;
    this.#onForeignSlot(secret);
    return null;
  }

  /**
   * The second half: the Pod goes, then its lock. A Pod that was marked since (assigned, finished) is not a free one: it
   * stays, and the answer is false.
   */
  async #finish(name: string, lock: Secret, podUid: string): Promise<boolean> {
    const { kube, points, namespace, pods } = this.#context;
    const pod = pods.get(name);
    const kept = (live: Pod) => live.metadata.uid !== podUid || live.metadata.labels?.[LABEL_PHASE] !== "parked";
    const against = await deletePod(this.#context, { by: "removal", name }, kept, pod ? graceOf(pod) : undefined);
    const { uid } = lock.metadata;
    const ref = { namespace, name };
    try {
      await points.run("removal.unlock", { pod: name }, () =>
        kube.delete(SECRETS, ref, uid === undefined ? {} : { uid }),
      );
    } catch (error) {
      if (isNotFound(error)) return against === null;
      // Another one of that name has the slot by now. But a server may say so of a mere race, and then the lock stands.
      if (!isConflict(error)) throw error;
      const found = await orNull(points.run("removal.read-lock", { pod: name }, () => kube.get(SECRETS, ref)));
      if (found?.metadata.uid === uid) throw error;
    }
    return against === null;
  }
}

/** A removal is about no work item. */
const NO_ITEM = {
  lease: "Worker",
  api: "",
  workId: "",
  sessionId: "",
  queuedAt: "",
  polledFromMs: 0,
  polledUntilMs: 0,
} as const;

/**
 * Of a Pod that waits for a key nothing runs, so it needs no grace (0.4-1.1 s). What does run, be it the init container that
 * parks it, gets the grace that it takes.
 */
function graceOf({ spec, status }: Pod): number | undefined {
  const alone =
    spec.containers.length === 1 && !spec.initContainers?.some(({ restartPolicy }) => restartPolicy === "Always");
  const all = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  return alone && !all.some(({ state }) => state?.running) ? 0 : undefined;
}
