import { type DemandReadings, NONE_OF_OURS, type RunningReading } from "../autoscale/demand.ts";
import { jitter } from "../core/backoff.ts";
import { Notifier } from "../core/notifier.ts";
import type { WorkersContext } from "./context.ts";

const JITTER = 0.1;

/**
 * A count of more pages runs less often, so that it uses no more of the organization's read budget than a short one.
 */
const PAGES_AT_FULL_PACE = 5;

/** The queue's statistics, which another loop follows. */
export interface QueueSource {
  readonly stats: { readonly depth: number; readonly pending: number } | null;
  /** When the last good reading was requested (monotonic). */
  readonly readMs: number;
  /** Reads the statistics now. Returns false on failure. */
  refresh(signal: AbortSignal): Promise<boolean>;
}

/**
 * Counts running sessions by reading the list once. Never throws; on failure it returns the wait, and reports the
 * reason elsewhere.
 */
export type CountRunning = (
  signal: AbortSignal,
) => Promise<
  | { readonly ok: true; readonly count: number; readonly isComplete: boolean; readonly pages: number }
  | { readonly ok: false; readonly waitMs: number }
>;

export interface DemandWatchOptions {
  readonly context: Pick<WorkersContext, "clock" | "random" | "timing">;
  readonly queue: QueueSource;
  readonly count: CountRunning;
  /** Whether workers exist, so that sessions may run on them. */
  readonly hasWorkers: () => boolean;
  /** Whether requests may be sent and make sense; without it nothing is refreshed. */
  readonly mayAsk: () => boolean;
  readonly onReading: () => void;
}

/**
 * Follows the inputs of the demand. The queue's statistics are read elsewhere. This class counts running sessions with
 * the list call: slowly, and again before a decision that depends on them, but not while no worker exists and no item
 * waits. A count that ran out of pages is discarded: it would be too low.
 */
export class DemandWatch {
  readonly #options: DemandWatchOptions;
  readonly #awaited = new Notifier();
  readonly #changed = new Notifier();
  /** Whether counting has been unnecessary since the last count, which is therefore old. */
  #isResting = true;
  #running: RunningReading | null = null;
  /** The last count made for a decision, and the items that waited just before it. */
  #before: { readonly running: RunningReading | null; readonly waiting: number } = { running: null, waiting: 0 };
  #counting: Promise<number> | null = null;
  #incomplete: string | null = null;

  constructor(options: DemandWatchOptions) {
    this.#options = options;
  }

  get readings(): DemandReadings {
    const { stats, readMs } = this.#options.queue;
    if (!this.#isNeeded)
      return { queue: stats && { depth: stats.depth, pending: stats.pending, readMs }, running: NONE_OF_OURS };
    return {
      queue: stats && { depth: stats.depth, pending: stats.pending + this.#gone(stats), readMs },
      running: this.#running,
    };
  }

  /**
   * Items that left the queue since the statistics that preceded a decision's count. The count may have been too early
   * to include them as running, and newer statistics of the other loop no longer show them.
   */
  #gone({ depth, pending }: { readonly depth: number; readonly pending: number }): number {
    const { running, waiting } = this.#before;
    return running !== null && running === this.#running ? Math.max(0, waiting - depth - pending) : 0;
  }

  /** Why sessions can't be counted although the Work API answers; null: they can. */
  get blockedReason(): string | null {
    return this.#incomplete;
  }

  /** Counts until the signal aborts, each time after `mayAsk` allows a request. Never throws. */
  async run(signal: AbortSignal, mayAsk: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock } = this.#options.context;
    while (!signal.aborted) {
      await mayAsk(signal);
      await this.#untilNeeded(signal);
      if (signal.aborted) return;
      const waitMs = await this.#countOnce(signal);
      await this.#awaited.waitAtMost(clock, waitMs, signal);
    }
  }

  /** Counts soon: the number of running sessions may have changed. */
  nudge(): void {
    this.#awaited.notify();
  }

  /** Notes that a worker came or went, or that the queue was read. */
  look(): void {
    this.#changed.notify();
  }

  /** If counting became necessary again after a rest, counts once, successfully or not. */
  async catchUp(signal: AbortSignal): Promise<void> {
    if (this.#isResting && this.#isNeeded && this.#options.mayAsk()) await this.#countOnce(signal);
  }

  /** Whether a running or waiting session may be ours. */
  get #isNeeded(): boolean {
    const { stats } = this.#options.queue;
    return this.#options.hasWorkers() || (stats !== null && (stats.depth > 0 || stats.pending > 0));
  }

  async #untilNeeded(signal: AbortSignal): Promise<void> {
    while (!this.#isNeeded && !signal.aborted) {
      this.#isResting = true;
      await this.#changed.wait(signal);
    }
  }

  /** Makes sure that the last count is at most `maxAgeMs` old. Returns false if counting failed. */
  async refreshRunning(maxAgeMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#options.context;
    const earliestMs = clock.monotonic() - maxAgeMs;
    if (this.#running && this.#running.readMs >= earliestMs) return true;
    if (!this.#options.mayAsk()) return false;
    // The count in flight may have been requested too early.
    if (this.#counting) await this.#counting;
    if (!this.#running || this.#running.readMs < earliestMs) await this.#countOnce(signal);
    return this.#running !== null && this.#running.readMs >= earliestMs;
  }

  /**
   * Refreshes both readings. The statistics come first, so that an item on its way from the queue to a worker is seen
   * at least once. Returns false if either reading failed.
   */
  async refreshAll(signal: AbortSignal): Promise<boolean> {
    if (!this.#options.mayAsk() || !(await this.#options.queue.refresh(signal)) || signal.aborted) return false;
    const { depth = 0, pending = 0 } = this.#options.queue.stats ?? {};
    if (!(await this.refreshRunning(0, signal))) return false;
    this.#before = { running: this.#running, waiting: depth + pending };
    return true;
  }

  /** Returns the time until the next count is due, in milliseconds. */
  #countOnce(signal: AbortSignal): Promise<number> {
    this.#counting ??= this.#walk(signal).finally(() => {
      this.#counting = null;
    });
    return this.#counting;
  }

  async #walk(signal: AbortSignal): Promise<number> {
    const { clock, random, timing } = this.#options.context;
    const readMs = clock.monotonic();
    const result = await this.#options.count(signal);
    this.#isResting = false;
    if (signal.aborted) return 0;
    if (!result.ok) return result.waitMs;
    if (result.isComplete) {
      this.#running = { running: result.count, readMs };
      this.#incomplete = null;
    } else {
      this.#incomplete = `the list of work items has more than ${result.pages} pages, so Berth cannot count running sessions`;
    }
    this.#options.onReading();
    return jitter(timing.countMs * Math.max(1, result.pages / PAGES_AT_FULL_PACE), JITTER, random);
  }
}
