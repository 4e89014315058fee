import { LABEL_PHASE } from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { isNotFound } from "../kube/errors.ts";
import { type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import type { ClaimTable } from "./claim-table.ts";
import type { SessionContext } from "./context.ts";
import { expiredFinished, readFinished } from "./finished.ts";
import { CLAIM_SECRET_TYPE } from "./journal.ts";
import { deletePod } from "./perform.ts";

const SECOND_MS = 1_000;

/** Deletions under way at the same time. */
const CONCURRENCY = 16;

/** Passes by the clock follow one another no closer than this. */
const MIN_WAKE_MS = 1_000;

/**
 * Deletes finished Pods when they were kept long enough for their logs, and Pods that a settled claim left behind: marked
 * as assigned, with no Secret and so with no item.
 */
export class Retention {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #passes: Passes;
  #draining = false;
  readonly #deleted = new Set<string>();
  /** Pods that could not be deleted, and when (monotonic) to try again: one that stays must not keep the others. */
  readonly #failed = new Map<string, number>();

  readonly #onForeignSlot: (secret: Secret) => void;

  constructor(options: {
    context: SessionContext;
    claims: ClaimTable;
    /** A Pod that seemed to be left behind has a Secret that no claim here knows. */
    onForeignSlot: (secret: Secret) => void;
  }) {
    this.#context = options.context;
    this.#claims = options.claims;
    this.#onForeignSlot = options.onForeignSlot;
    const { clock, timing, logger } = options.context;
    this.#passes = new Passes({
      clock,
      pass: () => this.#pass(),
      failed: (error) => logger.warn({ error: errorText(error) }, "finished Pods could not be deleted"),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
    });
  }

  /** Begins once all claims of an earlier process are in the table: before that, every assigned Pod looks left behind. */
  start(signal: AbortSignal): void {
    this.#passes.start(signal);
  }

  /** The Environment goes, and its Pods with it: nothing is kept any longer. */
  drain(): void {
    this.#draining = true;
    this.poke();
  }

  poke(): void {
    this.#passes.poke();
  }

  /** Resolves when nothing of it is under way any more, after the signal aborted. */
  ended(): Promise<void> {
    return this.#passes.ended();
  }

  /** Finished Pods that are still there. */
  get finished(): number {
    return this.#context.pods.list().filter((pod) => readFinished(pod) !== null && !pod.metadata.deletionTimestamp)
      .length;
  }

  async #pass(): Promise<void> {
    const { environment, clock, pods } = this.#context;
    const sessions = environment().spec.sessions;
    if (!sessions) return;
    for (const names of [this.#deleted, this.#failed]) {
      for (const name of names.keys()) if (!pods.get(name)) names.delete(name);
    }
    const present = pods.list().filter((pod) => !pod.metadata.deletionTimestamp && this.#isDue(pod));
    const finished = present.flatMap((pod) => readFinished(pod) ?? []);
    const { expired, nextAtMs } = expiredFinished(finished, clock.now(), {
      finishedMs: this.#draining ? 0 : sessions.retainFinishedSeconds * SECOND_MS,
      failedMs: this.#draining ? 0 : sessions.retainFailedSeconds * SECOND_MS,
      limit: this.#draining ? 0 : sessions.retainFinishedLimit,
    });
    const leftBehind = present.filter((pod) => this.#isLeftBehind(pod));
    const gone = [...expired.map(({ pod }) => pod), ...leftBehind];
    for (let from = 0; from < gone.length && this.#passes.active; from += CONCURRENCY) {
      await Promise.all(gone.slice(from, from + CONCURRENCY).map((pod) => this.#delete(pod)));
    }
    if (nextAtMs !== null) this.#passes.wakeAfter(nextAtMs - clock.now());
  }

  #isLeftBehind(pod: Pod): boolean {
    return pod.metadata.labels?.[LABEL_PHASE] === "assigned" && !this.#claims.has(pod.metadata.name ?? "");
  }

  #isDue({ metadata: { name = "" } }: Pod): boolean {
    return !this.#deleted.has(name) && this.#context.clock.monotonic() >= (this.#failed.get(name) ?? 0);
  }

  async #delete(pod: Pod): Promise<void> {
    const { logger, clock, timing } = this.#context;
    const name = pod.metadata.name ?? "";
    if (this.#claims.has(name)) return;
    const phase = pod.metadata.labels?.[LABEL_PHASE];
    // The cache may be behind a Pod that was just marked as finished.
    const isOther = (live: Pod) =>
      live.metadata.uid !== pod.metadata.uid || live.metadata.labels?.[LABEL_PHASE] !== phase;
    try {
      if (phase === "assigned") {
        const secret = await this.#record(name);
        if (secret) {
          this.#failed.set(name, clock.monotonic() + timing.retryMaxMs);
          return this.#onForeignSlot(secret);
        }
        logger.info({ pod: name }, "a Pod whose claim was settled before is deleted");
      }
      const kept = await deletePod(this.#context, name, isOther);
      if (!kept) this.#deleted.add(name);
    } catch (error) {
      logger.warn({ pod: name, error: errorText(error) }, "a Pod that is over could not be deleted");
      this.#failed.set(name, clock.monotonic() + timing.retryMaxMs);
      this.#passes.wakeAfter(timing.retryMaxMs);
    }
  }

  /** The record of a claim, read live: that none is known here does not say that there is none. */
  async #record(name: string): Promise<Secret | null> {
    const { kube, namespace } = this.#context;
    try {
      const secret = await kube.get(SECRETS, { namespace, name });
      return secret.type === CLAIM_SECRET_TYPE ? secret : null;
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
  }
}
