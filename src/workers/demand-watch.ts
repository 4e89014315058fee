import { type DemandReadings, NONE_OF_OURS, type RunningReading } from "../autoscale/demand.ts";
import { jitter } from "../core/backoff.ts";
import { Notifier } from "../core/notifier.ts";
import type { WorkersContext } from "./context.ts";

const JITTER = 0.1;

/** A walk of many pages is made less often, so that it takes no more of the organization's reads than one of a few. */
const PAGES_AT_FULL_PACE = 5;

/** The queue's statistics, as somebody else follows them. */
export interface QueueSource {
  readonly stats: { readonly depth: number; readonly pending: number } | null;
  /** When the last good reading was asked for, on the monotonic clock. */
  readonly readMs: number;
  /** Reads them anew. False when they could not be had. */
  refresh(signal: AbortSignal): Promise<boolean>;
}

/** One walk through the list. Never throws; null when it could not be had, with the reason told elsewhere. */
export type CountRunning = (
  signal: AbortSignal,
) => Promise<
  | { readonly ok: true; readonly count: number; readonly isComplete: boolean; readonly pages: number }
  | { readonly ok: false; readonly waitMs: number }
>;

/**
 * Follows what the demand is made of. Statistics are read elsewhere; running sessions are counted here with the list
 * call, at a slow pace, and anew before a decision that rests on them; not at all while no worker is there and nothing
 * waits. A walk that ran out of pages is a reading of nothing: what it counted is too few.
 */
export class DemandWatch {
  readonly #context: Pick<WorkersContext, "clock" | "random" | "timing">;
  readonly #queue: QueueSource;
  readonly #count: CountRunning;
  readonly #hasWorkers: () => boolean;
  readonly #mayAsk: () => boolean;
  readonly #onReading: () => void;
  readonly #awaited = new Notifier();
  readonly #changed = new Notifier();
  /** Nothing was counted since it was last not needed: what was counted before is old. */
  #isResting = true;
  #running: RunningReading | null = null;
  /** What waited just before the last walk for a decision, and what that walk showed. */
  #before: { readonly running: RunningReading | null; readonly waiting: number } = { running: null, waiting: 0 };
  #counting: Promise<number> | null = null;
  #incomplete: string | null = null;

  constructor(options: {
    context: Pick<WorkersContext, "clock" | "random" | "timing">;
    queue: QueueSource;
    count: CountRunning;
    /** Whether workers are there, so that sessions may run on them. */
    hasWorkers: () => boolean;
    /** Whether requests may be sent and make sense: nothing is read anew while they may not. */
    mayAsk: () => boolean;
    onReading: () => void;
  }) {
    this.#context = options.context;
    this.#queue = options.queue;
    this.#count = options.count;
    this.#hasWorkers = options.hasWorkers;
    this.#mayAsk = options.mayAsk;
    this.#onReading = options.onReading;
  }

  get readings(): DemandReadings {
    const { stats, readMs } = this.#queue;
    if (!this.#isNeeded)
      return { queue: stats && { depth: stats.depth, pending: stats.pending, readMs }, running: NONE_OF_OURS };
    return {
      queue: stats && { depth: stats.depth, pending: stats.pending + this.#gone(stats), readMs },
      running: this.#running,
    };
  }

  /**
   * Items that left the queue since the statistics before the walk for a decision: that walk may have been too early to see
   * them run, and newer statistics, which somebody else reads meanwhile, do not show them any more.
   */
  #gone({ depth, pending }: { readonly depth: number; readonly pending: number }): number {
    const { running, waiting } = this.#before;
    return running !== null && running === this.#running ? Math.max(0, waiting - depth - pending) : 0;
  }

  /** Why sessions cannot be counted although the Work API answers; null: they can. */
  get blockedReason(): string | null {
    return this.#incomplete;
  }

  /** Counts until the signal aborts, while `mayAsk` says that requests make sense. Never throws. */
  async run(signal: AbortSignal, mayAsk: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock } = this.#context;
    while (!signal.aborted) {
      await mayAsk(signal);
      await this.#untilNeeded(signal);
      if (signal.aborted) return;
      const waitMs = await this.#countOnce(signal);
      await this.#awaited.waitAtMost(clock, waitMs, signal);
    }
  }

  /** The number of running sessions may have changed more than the pace would show. */
  nudge(): void {
    this.#awaited.notify();
  }

  /** A worker came or went, or the queue was read. */
  look(): void {
    this.#changed.notify();
  }

  /** Resolves when sessions were counted, if they are needed for the first time after a rest, or could not be. */
  async catchUp(signal: AbortSignal): Promise<void> {
    if (this.#isResting && this.#isNeeded && this.#mayAsk()) await this.#countOnce(signal);
  }

  /** Whether a running session may be ours, or one that waits is. */
  get #isNeeded(): boolean {
    const { stats } = this.#queue;
    return this.#hasWorkers() || (stats !== null && (stats.depth > 0 || stats.pending > 0));
  }

  async #untilNeeded(signal: AbortSignal): Promise<void> {
    while (!this.#isNeeded && !signal.aborted) {
      this.#isResting = true;
      await this.#changed.wait(signal);
    }
  }

  /** Makes sure that running sessions were counted at most `maxAgeMs` ago. False when they could not be. */
  async refreshRunning(maxAgeMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#context;
    const earliestMs = clock.monotonic() - maxAgeMs;
    if (this.#running && this.#running.readMs >= earliestMs) return true;
    if (!this.#mayAsk()) return false;
    // One that is under way may have been asked for too early.
    if (this.#counting) await this.#counting;
    if (!this.#running || this.#running.readMs < earliestMs) await this.#countOnce(signal);
    return this.#running !== null && this.#running.readMs >= earliestMs;
  }

  /**
   * Reads both anew: the statistics first, so that an item on its way from the queue to a worker is seen at least once.
   * False when one of them could not be had.
   */
  async refreshAll(signal: AbortSignal): Promise<boolean> {
    if (!this.#mayAsk() || !(await this.#queue.refresh(signal)) || signal.aborted) return false;
    const { depth = 0, pending = 0 } = this.#queue.stats ?? {};
    if (!(await this.refreshRunning(0, signal))) return false;
    this.#before = { running: this.#running, waiting: depth + pending };
    return true;
  }

  /** Returns in how many milliseconds the next count is due. */
  #countOnce(signal: AbortSignal): Promise<number> {
    this.#counting ??= this.#walk(signal).finally(() => {
      this.#counting = null;
    });
    return this.#counting;
  }

  async #walk(signal: AbortSignal): Promise<number> {
    const { clock, random, timing } = this.#context;
    const readMs = clock.monotonic();
    const result = await this.#count(signal);
    this.#isResting = false;
    if (signal.aborted) return 0;
    if (!result.ok) return result.waitMs;
    if (result.isComplete) {
      this.#running = { running: result.count, readMs };
      this.#incomplete = null;
    } else {
      this.#incomplete = `the list of work items did not end within ${result.pages} pages: running sessions cannot be counted`;
    }
    this.#onReading();
    return jitter(timing.countMs * Math.max(1, result.pages / PAGES_AT_FULL_PACE), JITTER, random);
  }
}
