import { LABEL_PHASE } from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { errorText } from "../core/errors.ts";
import { isAlreadyExists, isConflict, isNotFound, orNull } from "../kube/errors.ts";
import { type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import { deletePod } from "../pods/delete.ts";
import { hasTurns, podOfSlot, slotOf } from "../pods/turns.ts";
import type { PoolContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import { type Journal, readJournal, renderJournal } from "../protocol/journal.ts";
import { SLEEP_ENDS, type SleepEnd } from "./sleep-plan.ts";
import type { SleepReport } from "./sleep-report.ts";

/** The sleep that ends with a Pod. */
export interface EndingSleep {
  readonly sessionId: string;
  readonly why: SleepEnd;
}

/** A Pod being removed, until it is deleted and our lock on its slot is released. */
interface Removal {
  readonly podUid: string;
  /** The name of the lock: the Secret that the Pod's next claim would create. */
  readonly slot: string;
  /** The Secret that locks its slot; null while it may have to be created. */
  lock: Secret | null;
  readonly backoff: Backoff;
  /** No try before this (monotonic). Infinity while one is in flight. */
  dueMs: number;
  /** The sleep to report once the Pod is deleted; null: none, or it was reported. */
  sleep: EndingSleep | null;
}

export type RemovalResult =
  | "removed"
  /** Another client holds the slot: the Pod is left alone. */
  | "taken"
  /** The Pod has changed since: it stays. */
  | "kept"
  /** Not removed yet; retried until it succeeds. */
  | "failed";

/**
 * Deletes Pods without a claim: parked and sleeping ones. It first takes the slot by creating the Secret that a claim
 * would create: a late actor can't delete a Pod that was just claimed, and no client can claim a Pod that is being
 * deleted. Each removal is carried to its end, so that no lock remains.
 */
export class Removals {
  readonly #context: PoolContext;
  readonly #onForeignSlot: (secret: Secret) => void;
  readonly #report: Pick<SleepReport, "ended">;
  readonly #begun = new Map<string, Removal>();

  constructor(options: {
    context: PoolContext;
    onForeignSlot: (secret: Secret) => void;
    report: Pick<SleepReport, "ended">;
  }) {
    this.#context = options.context;
    this.#onForeignSlot = options.onForeignSlot;
    this.#report = options.report;
  }

  /** Whether the removal of this Pod began and is not done. */
  has(name: string): boolean {
    return this.#begun.has(name);
  }

  get size(): number {
    return this.#begun.size;
  }

  /** Names of the locks of removals that began and are not done. */
  slots(): string[] {
    return [...this.#begun.values()].map(({ slot }) => slot);
  }

  /** When (monotonic) to retry the next failed removal; null: none failed. */
  get nextMs(): number | null {
    const next = Math.min(...[...this.#begun.values()].map(({ dueMs }) => dueMs));
    return Number.isFinite(next) ? next : null;
  }

  /** @param sleep the sleep that ends with the Pod, if a session sleeps in it */
  remove(pod: Pod, sleep: EndingSleep | null = null): Promise<RemovalResult> {
    const name = pod.metadata.name ?? "";
    return this.#attempt(name, this.#begin(slotOf(pod), pod.metadata.uid ?? "", null, sleep));
  }

  /** Adopts a removal that an earlier process began. */
  adopt(lock: Secret, { podUid, sessionId, why }: Pick<Journal, "podUid" | "sessionId" | "why">): void {
    this.#begin(lock.metadata.name ?? "", podUid, lock, isSleepEnd(why) ? { sessionId, why } : null);
  }

  /**
   * Retries the failed removals that are due; by name. While no Secret can be created, one of them tries for all: with
   * many Pods, their tries would burden an API server that is overloaded.
   */
  retryDue(): [name: string, result: Promise<RemovalResult>][] {
    const { clock, timing, holds } = this.#context;
    const nowMs = clock.monotonic();
    const results: [string, Promise<RemovalResult>][] = [];
    let fromMs = holds.fromMs("journal");
    for (const [name, removal] of this.#begun) {
      if (removal.dueMs > nowMs) continue;
      if (removal.lock === null && fromMs !== null) {
        removal.dueMs = Math.max(fromMs, nowMs);
        if (fromMs > nowMs) continue;
        fromMs = nowMs + timing.retryBaseMs;
      }
      results.push([name, this.#attempt(name, removal)]);
    }
    return results;
  }

  #begin(slot: string, podUid: string, lock: Secret | null, sleep: EndingSleep | null): Removal {
    const { timing, random, clock } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    const removal = { podUid, slot, lock, backoff, dueMs: clock.monotonic(), sleep };
    this.#begun.set(podOfSlot(slot).pod, removal);
    return removal;
  }

  async #attempt(name: string, removal: Removal): Promise<RemovalResult> {
    const { holds } = this.#context;
    removal.dueMs = Number.POSITIVE_INFINITY;
    // The lock is the Secret that a claim would create, so what refuses it refuses claims. The reverse need not hold.
    let step: "journal" | "delete-pod" = "journal";
    try {
      removal.lock ??= await this.#takeSlot(name, removal);
      step = "delete-pod";
      const result = removal.lock === null ? "taken" : await this.#finish(name, removal.lock, removal);
      // The slot may be held by another removal, which was adopted meanwhile.
      if (this.#begun.get(name) === removal) this.#begun.delete(name);
      holds.succeeded("delete-pod");
      return result;
    } catch (error) {
      removal.dueMs = this.#context.clock.monotonic() + removal.backoff.next();
      if (isStepFailure(error)) holds.failed(step, { error, name });
      // Another operator may end the same removal.
      const level = isNotFound(error) || isConflict(error) ? "info" : "warn";
      this.#context.logger[level]({ pod: name, error: errorText(error) }, "cannot remove a waiting Pod yet");
      return "failed";
    }
  }

  /** Null: another client holds it. */
  async #takeSlot(name: string, { slot, podUid, sleep }: Removal): Promise<Secret | null> {
    const { kube, points, namespace, name: environment, uid: environmentUid } = this.#context;
    const journal = { use: "removal", environmentUid, podUid, ...NO_ITEM, ...sleep } as const;
    try {
      const lock = renderJournal({ name: slot, namespace, environment }, journal, null);
      const about = { pod: name, asks: { turn: podOfSlot(slot).turn } };
      return await points.run("removal.lock", about, () => kube.create(SECRETS, lock));
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
    const ref = { namespace, name: slot };
    const secret = await points.run("removal.read-lock", { pod: name }, () => kube.get(SECRETS, ref));
    const found = readJournal(secret);
    // Our own creation, whose answer was lost, or a removal that another process began.
    if (found?.use === "removal" && found.podUid === podUid) return secret;
    this.#onForeignSlot(secret);
    return null;
  }

  /**
   * Deletes the Pod, reports the end of its sleep, then deletes its lock: if this process ends in between, the next one
   * finds the reason in the lock. A Pod that was marked meanwhile (assigned, finished) is not free and stays. So does a
   * Pod with another turn than the locked one. A turn could be added until the deletion, so the deletion of a Pod with
   * turns names its resourceVersion (M).
   */
  async #finish(name: string, lock: Secret, removal: Removal): Promise<"removed" | "kept"> {
    const { slot, podUid } = removal;
    const { kube, points, namespace, pods } = this.#context;
    const pod = pods.get(name);
    const kept = (live: Pod) =>
      live.metadata.uid !== podUid || !HELD_BY_NONE.has(live.metadata.labels?.[LABEL_PHASE]) || slotOf(live) !== slot;
    const graceSeconds = pod ? graceOf(pod) : undefined;
    const against = await deletePod(this.#context, { by: "removal", name }, kept, { graceSeconds, asRead: hasTurns });
    const result = against === null ? "removed" : "kept";
    const { sleep } = removal;
    removal.sleep = null;
    if (sleep && result === "removed") {
      this.#report.ended(sleep.sessionId, { metadata: { name, namespace, uid: podUid } }, sleep.why);
    }
    const { uid } = lock.metadata;
    const ref = { namespace, name: slot };
    try {
      await points.run("removal.unlock", { pod: name }, () =>
        kube.delete(SECRETS, ref, uid === undefined ? {} : { uid }),
      );
    } catch (error) {
      if (isNotFound(error)) return result;
      // A conflict usually means that another Secret holds the slot. But a server may also report a mere race, in which
      // case the lock still exists.
      if (!isConflict(error)) throw error;
      const found = await orNull(points.run("removal.read-lock", { pod: name }, () => kube.get(SECRETS, ref)));
      if (found?.metadata.uid === uid) throw error;
    }
    return result;
  }
}

function isSleepEnd(why: string | undefined): why is SleepEnd {
  return why !== undefined && Object.hasOwn(SLEEP_ENDS, why);
}

/** Phases of Pods that serve no work item. */
const HELD_BY_NONE: ReadonlySet<string | undefined> = new Set(["warm", "sleeping"]);

/** A removal concerns no work item. */
const NO_ITEM = {
  lease: "Worker",
  workId: "",
  sessionId: "",
  queuedAt: "",
  polledFromMs: 0,
  polledUntilMs: 0,
} as const;

/**
 * A Pod that waits for a key runs nothing, so it needs no grace period (0.4-1.1 s). If anything runs, including the
 * waiting shell, the Pod gets its full grace period.
 */
function graceOf({ spec, status }: Pod): number | undefined {
  const alone =
    spec.containers.length === 1 && !spec.initContainers?.some(({ restartPolicy }) => restartPolicy === "Always");
  const all = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  return alone && !all.some(({ state }) => state?.running) ? 0 : undefined;
}
