import { LABEL_PHASE } from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { orNull } from "../kube/errors.ts";
import { type Pod, SECRETS, type Secret } from "../kube/resource.ts";
import { deleteAsSeen, deletePod } from "../pods/delete.ts";
import { expiredFinished, readFinished } from "../pods/finished.ts";
import { hasTurns, slotOf } from "../pods/turns.ts";
import { ClaimPriority } from "../protocol/claim-priority.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import { CLAIM_SECRET_TYPE } from "../protocol/journal.ts";
import type { Outcome } from "../protocol/outcome.ts";

/** Most finished and failed Pods of an Environment. Beyond it, the oldest are deleted. */
const MOST_FINISHED = 100;

/** Deletions in flight at the same time. */
const CONCURRENCY = 16;

/** Longer than a burst of a hundred claims takes: in an endless rush, Pods are kept that much longer. */
const LONGEST_HOLD_MS = 5_000;

/** In a rush, hundreds of Pods change within a second, and a pass looks at all of them. */
const REST_MS = 250;

/** The least time between two timed passes. */
const MIN_WAKE_MS = 1_000;

/** By then the watch has shown the change that caused a deletion to be refused. */
const OUTRUN_MS = 1_000;

/**
 * Deletes finished Pods whose logs were kept long enough, those not kept at all, and Pods that a settled claim left
 * behind: marked as assigned, with no Secret and so without an item.
 */
export class Retention {
  readonly #context: PoolContext;
  readonly #claims: ClaimTable;
  readonly #claimPriority: ClaimPriority;
  readonly #passes: Passes;
  #draining = false;
  /**
   * UIDs of Pods whose claims were settled here, by name: they are deleted at once instead of being marked as finished.
   */
  readonly #released = new Map<string, string | undefined>();
  /**
   * Pods marked as finished, until the cache shows the mark or until this time (monotonic): until then they look left
   * behind. A mark that met a conflict, or that an older request reverted, never shows.
   */
  readonly #marked = new Map<string, number>();
  /**
   * Pods whose deletion was tried, and when (monotonic) to check one again that still exists: the cache may lag, or the
   * deletion may have failed or been refused. One that stays must not block the others.
   */
  readonly #tried = new Map<string, number>();

  readonly #onForeignSlot: (secret: Secret) => void;

  constructor(options: {
    context: PoolContext;
    claims: ClaimTable;
    /** Called when a Pod that seemed left behind has a Secret that no claim here knows. */
    onForeignSlot: (secret: Secret) => void;
  }) {
    this.#context = options.context;
    this.#claims = options.claims;
    this.#claimPriority = new ClaimPriority({ clock: options.context.clock, claims: options.claims });
    this.#onForeignSlot = options.onForeignSlot;
    const { clock, timing, logger } = options.context;
    this.#passes = new Passes({
      clock,
      pass: () => this.#pass(),
      failed: (error) => logger.warn({ error: errorText(error) }, "cannot delete ended Pods"),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
      restMs: REST_MS,
    });
  }

  /**
   * Starts once the table holds all claims of an earlier process: before that, every assigned Pod looks left behind.
   */
  start(signal: AbortSignal): void {
    this.#passes.start(signal);
  }

  /** The Environment and its Pods are being deleted: keep no Pods. */
  drain(): void {
    this.#draining = true;
    this.poke();
  }

  poke(): void {
    this.#passes.poke();
  }

  /** Whether the Pod of a session with this outcome is kept for its logs. A kept Pod must be marked as finished. */
  isKept({ failed }: Pick<Outcome, "failed">): boolean {
    const { finishedMs, failedMs, limit } = this.#keep;
    return limit > 0 && (failed ? failedMs : finishedMs) > 0;
  }

  /** Notes a Pod that is not kept and whose claim is settled: it has no record to look for. */
  release({ metadata: { name = "", uid } }: Pod): void {
    this.#released.set(name, uid);
    this.poke();
  }

  /** Notes a Pod that was marked as finished. */
  marked({ metadata: { name = "" } }: Pod): void {
    const { clock, timing } = this.#context;
    this.#marked.set(name, clock.monotonic() + timing.retryMaxMs);
    this.#passes.wakeAfter(timing.retryMaxMs);
  }

  /** Resolves when nothing is in flight, after the signal aborted. */
  ended(): Promise<void> {
    return this.#passes.ended();
  }

  /** The number of finished Pods that are not being deleted. */
  get finished(): number {
    return this.#context.pods.list().filter((pod) => readFinished(pod) !== null && !pod.metadata.deletionTimestamp)
      .length;
  }

  /** Whether every finished Pod is being deleted or gone. */
  get isEmpty(): boolean {
    const { pods } = this.#context;
    return this.finished === 0 && ![...this.#released].some(([name, uid]) => isThere(pods.get(name), uid));
  }

  get #keep(): { finishedMs: number; failedMs: number; limit: number } {
    const sessions = this.#context.environment().spec.sessions;
    if (!sessions || this.#draining) return { finishedMs: 0, failedMs: 0, limit: 0 };
    return {
      finishedMs: sessions.retainEndedSeconds * SECOND_MS,
      failedMs: sessions.retainFailedSeconds * SECOND_MS,
      limit: MOST_FINISHED,
    };
  }

  async #pass(): Promise<void> {
    const { environment, kube, pods, clock } = this.#context;
    if (!environment().spec.sessions) return;
    for (const name of this.#tried.keys()) if (!pods.get(name)) this.#tried.delete(name);
    for (const [name, uid] of this.#released) if (!isThere(pods.get(name), uid)) this.#released.delete(name);
    for (const [name, untilMs] of this.#marked) {
      const phase = pods.get(name)?.metadata.labels?.[LABEL_PHASE];
      if (phase === undefined || phase === "ended" || clock.monotonic() >= untilMs) this.#marked.delete(name);
    }
    const present = pods.list().filter((pod) => !pod.metadata.deletionTimestamp && this.#isDue(pod));
    const finished = present.flatMap((pod) => readFinished(pod) ?? []);
    const { expired, nextAtMs } = expiredFinished(finished, kube.now(), this.#keep);
    const leftBehind = present.filter((pod) => this.#isLeftBehind(pod));
    const gone = [...expired.map(({ pod }) => pod), ...leftBehind];
    if (gone.length === 0) this.#claimPriority.nothingWaits();
    // A claim's progress does not poke this loop, so check once a second.
    const waits = gone.length > 0 && !this.#draining && this.#claimPriority.holdMs(LONGEST_HOLD_MS) > 0;
    if (waits) return this.#passes.wakeAfter(MIN_WAKE_MS);
    for (let from = 0; from < gone.length && this.#passes.active; from += CONCURRENCY) {
      await Promise.all(gone.slice(from, from + CONCURRENCY).map((pod) => this.#delete(pod)));
    }
    if (nextAtMs !== null) this.#passes.wakeAfter(nextAtMs - kube.now());
  }

  #isLeftBehind({ metadata: { name = "", labels } }: Pod): boolean {
    return labels?.[LABEL_PHASE] === "running" && !this.#claims.has(name) && !this.#marked.has(name);
  }

  #isDue({ metadata: { name = "" } }: Pod): boolean {
    return this.#context.clock.monotonic() >= (this.#tried.get(name) ?? 0);
  }

  async #delete(pod: Pod): Promise<void> {
    const { logger, clock, timing } = this.#context;
    const name = pod.metadata.name ?? "";
    if (this.#claims.has(name)) return;
    let againMs = timing.retryMaxMs;
    const phase = pod.metadata.labels?.[LABEL_PHASE];
    // The cache may lag behind a Pod that was just marked as finished, or that serves its session's next work item.
    const isOther = (live: Pod) =>
      live.metadata.uid !== pod.metadata.uid ||
      live.metadata.labels?.[LABEL_PHASE] !== phase ||
      slotOf(live) !== slotOf(pod) ||
      this.#claims.has(name);
    try {
      const mayHaveRecord = phase === "running" && !this.#released.has(name);
      if (!mayHaveRecord && (await deleteAsSeen(this.#context, { by: "retention", name }, pod))) {
        this.#context.holds.succeeded("delete-pod");
        return;
      }
      // The usual cause is the kubelet's final status: the watch shows it in a moment, and nothing waits for this Pod.
      if (!mayHaveRecord && !this.#tried.has(name)) {
        againMs = OUTRUN_MS;
        return;
      }
      if (mayHaveRecord) {
        const secret = await this.#record(pod);
        if (secret) return this.#onForeignSlot(secret);
        logger.info({ pod: name }, "deleted a Pod whose claim was already settled");
      }
      // A Pod with turns may sleep and wake before this deletion arrives.
      await deletePod(this.#context, { by: "retention", name }, isOther, { asRead: hasTurns });
      this.#context.holds.succeeded("delete-pod");
    } catch (error) {
      if (isStepFailure(error)) this.#context.holds.failed("delete-pod", { error, name });
      logger.warn({ pod: name, error: errorText(error) }, "cannot delete an ended Pod");
    } finally {
      this.#tried.set(name, clock.monotonic() + againMs);
      this.#passes.wakeAfter(againMs);
    }
  }

  /** The record of a claim, read live: the claim table may not know about it. */
  async #record(pod: Pod): Promise<Secret | null> {
    const { kube, points, namespace } = this.#context;
    const { name = "" } = pod.metadata;
    const read = () => kube.get(SECRETS, { namespace, name: slotOf(pod) });
    const secret = await orNull(points.run("retention.read-secret", { pod: name }, read));
    return secret?.type === CLAIM_SECRET_TYPE ? secret : null;
  }
}

/** Whether this is the Pod with this UID and it is not being deleted. */
function isThere(pod: Pod | undefined, uid: string | undefined): boolean {
  return pod !== undefined && pod.metadata.uid === uid && !pod.metadata.deletionTimestamp;
}
