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

/** What of an Environment's context the queue watch works with. */
export interface QueueContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly work: () => WorkApiClient;
  readonly points: Points<"queue.stats">;
  readonly metrics: Metrics;
  readonly labels: { readonly namespace: string; readonly environment: string };
  readonly timing: Pick<Timing, "idleAfterMs" | "retryBaseMs" | "retryMaxMs" | "statsBusyMs">;
}

const JITTER = 0.1;
/**
 * Follows the queue's statistics: fast while there is work, slowly when idle, at once when somebody says that the queue
 * may have moved. A failed reading leaves the last one as it was: an error is never taken for an empty queue.
 */
export class QueueWatch {
  readonly #context: QueueContext;
  readonly #health: ApiHealth;
  readonly #pace: PollPace;
  readonly #onStats: (stats: QueueStats) => void;
  readonly #unacknowledged: () => number;
  readonly #onAnswer: (api: string, answer: Answer<unknown>) => void;
  #stats: QueueStats | null = null;
  #readMs = Number.NEGATIVE_INFINITY;
  #polled = 0;
  /** Items in nobody's hands as far as this process knows: pending at the last reading, and at both of the last two. */
  #unclaimed = 0;
  #stranded = 0;
  #busyUntilMs = 0;
  #wake: (() => void) | null = null;
  /** Somebody wants a reading that begins later than the one under way. */
  #isLookWanted = false;

  constructor(options: {
    context: QueueContext;
    health: ApiHealth;
    pace: PollPace;
    onStats: (stats: QueueStats) => void;
    /** Claims of our own whose item was polled and not acknowledged yet: they are part of `pending`. */
    unacknowledged: () => number;
    /** Told each answer, for its Date header. */
    onAnswer?: (api: string, answer: Answer<unknown>) => void;
  }) {
    this.#onAnswer = options.onAnswer ?? (() => {});
    this.#unacknowledged = options.unacknowledged;
    this.#context = options.context;
    this.#health = options.health;
    this.#pace = options.pace;
    this.#onStats = options.onStats;
  }

  /** The last good reading; null before the first. */
  get stats(): QueueStats | null {
    return this.#stats;
  }

  /** The last good reading as the Environment's status has it. */
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

  /** When the last good reading was asked for, on the monotonic clock. */
  get readMs(): number {
    return this.#readMs;
  }

  /**
   * Items that wait, as far as known: those of the last reading without what was polled since it was asked for. A reading
   * taken at its word would ask for a second Pod for every item that just got one. An item that was polled and let go
   * (by us, or by a poller that died) is pending until somebody polls again, and nobody polls without a Pod: what stays
   * pending waits, too.
   */
  get depth(): number {
    return Math.max(0, (this.#stats?.depth ?? 0) - this.#polled) + this.#stranded;
  }

  /** A poll was answered with an item. */
  polled(): void {
    this.#polled += 1;
  }

  /** Work came by, or the last free Pod was taken: read soon, and often for a while. */
  nudge(): void {
    this.#busyUntilMs = this.#context.clock.monotonic() + this.#context.timing.idleAfterMs;
    this.#wake?.();
  }

  /**
   * Reads soon, and then at the pace of before: nobody polls any more, and what polls said of the queue until now is for these
   * readings to say; or somebody says that there may be work.
   */
  look(): void {
    if (this.#wake) this.#wake();
    // What is being read may have been so before there was work.
    else this.#isLookWanted = true;
  }

  /** Reads until the signal aborts, while `mayRead` says that requests make sense. Never throws. */
  async run(signal: AbortSignal, mayRead: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock, timing, random } = this.#context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    while (!signal.aborted) {
      await mayRead(signal);
      if (signal.aborted) return;
      const readMs = clock.monotonic();
      let waitMs: number;
      const attempt = this.#health.attempt("stats");
      this.#pace.noteLook();
      try {
        await this.#read(attempt, signal);
        backoff.reset();
        waitMs = this.#isBusy() ? jitter(timing.statsBusyMs, JITTER, random) : this.#pace.statsGapMs();
      } catch (error) {
        if (signal.aborted) return;
        waitMs = attempt.failed(error, backoff);
      }
      await this.#wait(clock, waitMs, readMs + MIN_PAUSE_MS, signal);
    }
  }

  /** Reads once, now, for a decision. False when it could not be had: the loop tells why. Never throws. */
  async refresh(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#read(this.#health.attempt("stats"), signal);
      return true;
    } catch {
      return false;
    }
  }

  /** Throws WorkApiError. */
  async #read(attempt: Attempt, signal: AbortSignal): Promise<void> {
    const readMs = this.#context.clock.monotonic();
    const polledBefore = this.#polled;
    const unacknowledgedBefore = this.#unacknowledged();
    const work = this.#context.work();
    const answer = await this.#context.points.run("queue.stats", {}, () => work.stats({ signal }));
    attempt.answered();
    this.#onAnswer(work.baseUrl, answer);
    // Two may be under way: the later one says more.
    if (readMs < this.#readMs) return;
    this.#readMs = readMs;
    this.#polled -= polledBefore;
    this.#notePending(answer.value.pending - Math.max(unacknowledgedBefore, this.#unacknowledged()));
    this.#take(answer.value);
    this.#pace.noteStats(this.#showsWork);
  }

  get #showsWork(): boolean {
    return (this.#stats?.depth ?? 0) > 0 || this.#unclaimed > 0;
  }

  #isBusy(): boolean {
    return this.#showsWork || this.#context.clock.monotonic() < this.#busyUntilMs;
  }

  /** Seen once it may be in another operator's hands for this moment. */
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
    this.#onStats(stats);
  }

  /** A nudge ends the wait, but never before `notBeforeMs`: a burst of claims must not become a burst of readings. */
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

/** A count of the status is an int32, and the API server takes no status with a larger one. */
const MAX_SHOWN = 2 ** 31 - 1;

function shown(count: number): number {
  return Math.min(count, MAX_SHOWN);
}

/** Between two readings at least; bounds what nudges can cost. */
const MIN_PAUSE_MS = 500;
