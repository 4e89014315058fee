import type { Verdict } from "../api/conditions.ts";
import type { QueueStatus } from "../api/environment.ts";
import { Backoff, jitter, type Random } from "../core/backoff.ts";
import { type Clock, SECOND_MS, sleep } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Answer, WorkApiClient } from "../work/client.ts";
import type { QueueStats } from "../work/types.ts";
import type { ApiHealth, Attempt } from "./api-health.ts";
import type { PollPace } from "./poll-pace.ts";
import { type OwnPollers, Pollers } from "./pollers.ts";

/** The part of an Environment's context that the queue watch needs. */
export interface QueueContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly work: () => WorkApiClient;
  readonly points: Points<"queue.stats">;
  readonly metrics: Metrics;
  readonly labels: { readonly namespace: string; readonly environment: string };
  readonly timing: Pick<Timing, "idleAfterMs" | "pollersLastMs" | "retryBaseMs" | "retryMaxMs" | "statsBusyMs">;
}

export interface QueueWatchOptions {
  readonly context: QueueContext;
  readonly health: ApiHealth;
  readonly pace: PollPace;
  readonly onStats: (stats: QueueStats) => void;
  /** Our claims whose item was polled and not acknowledged yet; `pending` includes them. */
  readonly unacknowledged: () => number;
  /** Default: one, as in `sessions` mode, where an Environment polls with one id. */
  readonly ownPollers?: () => OwnPollers;
  /** `spec.api.otherPollers`. */
  readonly expectedPollers: () => number;
  /** Receives each answer, for its Date header. */
  readonly onAnswer?: (answer: Answer<unknown>) => void;
}

const JITTER = 0.1;
const ONE_POLLER: OwnPollers = { most: 1, shouldPoll: false };
/**
 * Follows the queue's statistics: often while there is work, rarely when idle, and at once on a hint that the queue may
 * have changed. A failed reading keeps the last one: an error never counts as an empty queue.
 */
export class QueueWatch {
  readonly #options: QueueWatchOptions;
  readonly #context: QueueContext;
  readonly #pollers: Pollers;
  #stats: QueueStats | null = null;
  #readMs = Number.NEGATIVE_INFINITY;
  #polled = 0;
  /**
   * Items that no client holds, as far as this process knows: pending at the last reading, and at both of the last two.
   */
  #unclaimed = 0;
  #stranded = 0;
  #busyUntilMs = 0;
  #wake: (() => void) | null = null;
  /** Whether to read again right after the reading in flight. */
  #isLookWanted = false;

  constructor(options: QueueWatchOptions) {
    const { context, ownPollers: own = () => ONE_POLLER, expectedPollers: expected } = options;
    this.#options = options;
    this.#context = context;
    this.#pollers = new Pollers({ ...context, own, expected });
  }

  /** The last good reading; null before the first. */
  get stats(): QueueStats | null {
    return this.#stats;
  }

  /** The last good reading in the form of the Environment's status. */
  get status(): QueueStatus | null {
    const stats = this.#stats;
    return (
      stats && {
        depth: shown(stats.depth),
        pending: shown(stats.pending),
        ...(stats.oldest_queued_at === null ? {} : { oldestQueuedAt: stats.oldest_queued_at }),
        ...(stats.workers_polling === null ? {} : { workersPolling: shown(stats.workers_polling) }),
      }
    );
  }

  /** The verdict on the queue's pollers. */
  get pollers(): Verdict {
    return this.#pollers.verdict;
  }

  /** When the last good reading was requested (monotonic). */
  get readMs(): number {
    return this.#readMs;
  }

  /**
   * Items that wait, as far as known: the last reading without the items polled since its request. Otherwise each item
   * that just got a Pod would ask for a second one. A polled item that was released (by us, or by a poller that died)
   * stays pending until the next poll, and nothing polls without a Pod. So items that stay pending count as waiting,
   * too.
   */
  get depth(): number {
    return Math.max(0, (this.#stats?.depth ?? 0) + this.#stranded - this.#polled);
  }

  /** Notes that a poll returned an item. */
  polled(): void {
    this.#polled += 1;
  }

  /** The item of a poll found no Pod, and still waits. */
  returned(): void {
    this.#polled = Math.max(0, this.#polled - 1);
  }

  /** Work arrived, or the last free Pod was claimed: read soon, and often for a while. */
  nudge(): void {
    this.#busyUntilMs = this.#context.clock.monotonic() + this.#context.timing.idleAfterMs;
    this.#wake?.();
  }

  /**
   * Reads soon without changing the pace after that. Called when polls end, so that statistics show new work from now
   * on, and when a hint says that there may be work.
   */
  look(): void {
    if (this.#wake) this.#wake();
    // The reading in flight may predate the work.
    else this.#isLookWanted = true;
  }

  /** Reads until the signal aborts, each time after `mayRead` allows a request. Never throws. */
  async run(signal: AbortSignal, mayRead: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock, timing, random } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    while (!signal.aborted) {
      await mayRead(signal);
      if (signal.aborted) return;
      const readMs = clock.monotonic();
      let waitMs: number;
      const attempt = this.#options.health.attempt("stats");
      this.#options.pace.noteLook();
      try {
        await this.#read(attempt, signal);
        backoff.reset();
        waitMs = this.#isBusy() ? jitter(timing.statsBusyMs, JITTER, random) : this.#options.pace.statsGapMs();
      } catch (error) {
        if (signal.aborted) return;
        waitMs = attempt.failed(error, backoff);
      }
      await this.#wait(clock, waitMs, readMs + MIN_PAUSE_MS, signal);
    }
  }

  /** Reads once, now, for a decision. Returns false on failure, which the loop reports. Never throws. */
  async refresh(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#read(this.#options.health.attempt("stats"), signal);
      return true;
    } catch {
      return false;
    }
  }

  /** Throws WorkApiError. */
  async #read(attempt: Attempt, signal: AbortSignal): Promise<void> {
    const readMs = this.#context.clock.monotonic();
    const polledBefore = this.#polled;
    const unacknowledgedBefore = this.#options.unacknowledged();
    const work = this.#context.work();
    const answer = await this.#context.points.run("queue.stats", {}, () => work.stats({ signal }));
    attempt.answered();
    this.#options.onAnswer?.(answer);
    // Two readings may be in flight: keep the later one.
    if (readMs < this.#readMs) return;
    this.#readMs = readMs;
    this.#polled -= polledBefore;
    this.#notePending(answer.value.pending - Math.max(unacknowledgedBefore, this.#options.unacknowledged()));
    this.#take(answer.value);
    this.#options.pace.noteStats(this.#showsWork);
  }

  get #showsWork(): boolean {
    return (this.#stats?.depth ?? 0) > 0 || this.#unclaimed > 0;
  }

  #isBusy(): boolean {
    return this.#showsWork || this.#context.clock.monotonic() < this.#busyUntilMs;
  }

  /** An item pending in only one reading may be in another operator's hands for a moment. */
  #notePending(unclaimed: number): void {
    this.#stranded = Math.max(0, Math.min(unclaimed, this.#unclaimed));
    this.#unclaimed = Math.max(0, unclaimed);
  }

  #take(stats: QueueStats): void {
    const { metrics, labels } = this.#context;
    this.#stats = stats;
    metrics.queueDepth.set(labels, stats.depth);
    metrics.queuePending.set(labels, stats.pending);
    const oldest = Date.parse(stats.oldest_queued_at ?? "");
    metrics.queueOldestTimestamp.set(labels, Number.isNaN(oldest) ? 0 : oldest / SECOND_MS);
    if (stats.workers_polling !== null) metrics.queueWorkersPolling.set(labels, stats.workers_polling);
    this.#pollers.noteReading(stats.workers_polling);
    this.#options.onStats(stats);
  }

  /** A nudge ends the wait, but not before `notBeforeMs`: a burst of claims must not cause a burst of readings. */
  async #wait(clock: Clock, waitMs: number, notBeforeMs: number, signal: AbortSignal): Promise<void> {
    const nudged = new AbortController();
    this.#wake = () => nudged.abort();
    if (this.#isLookWanted) nudged.abort();
    this.#isLookWanted = false;
    await sleep(clock, waitMs, AbortSignal.any([signal, nudged.signal]));
    this.#wake = null;
    if (nudged.signal.aborted) await sleep(clock, Math.max(0, notBeforeMs - clock.monotonic()), signal);
  }
}

/** Counts in the status are int32: the API server refuses a status with a larger one. */
const MAX_SHOWN = 2 ** 31 - 1;

function shown(count: number): number {
  return Math.min(count, MAX_SHOWN);
}

/** The least pause between two readings, which bounds the cost of nudges. */
const MIN_PAUSE_MS = 500;
