import { type BackoffPolicy, backoffCeiling, type Random } from "../core/backoff.ts";
import type { Clock, Timer } from "../core/clock.ts";
import { DueHeap } from "../core/due-heap.ts";
import { errorText, TerminalError, WaitError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";

/** A first retry soon, since most faults are races that are over by then; at most one a minute and key for what stays broken. */
export const RETRY_BACKOFF: BackoffPolicy = { baseMs: 200, maxMs: 60_000 };

export interface WorkQueueOptions {
  /** Label of the metrics and logs. */
  readonly name: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  readonly backoff?: BackoffPolicy;
  readonly random?: Random;
}

export interface RunOptions {
  /** Keys that are handled at the same time. */
  readonly workers: number;
  readonly handle: (key: string, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * A queue of keys, after client-go's work queue.
 *
 * Guaranteed: a key is never handled twice at the same time; a key added while it waits is handled once; a key added
 * while it is handled is handled once more afterwards; keys come in the order they were added. Not guaranteed: that a
 * key is handled as often as it was added, or anything about time.
 *
 * What a handler throws decides what happens next: WaitError comes again after its time; TerminalError is logged and
 * waits for the next add; anything else comes again with backoff. A handler that returns forgets its failures.
 */
export class WorkQueue {
  // A key is in `dirty` when it wants to be handled, in `processing` while it is, in `queue` when a worker may take it.
  // Invariants: queue ⊆ dirty, and queue ∩ processing = ∅. A key that is dirty and processing moves to `queue` when
  // its handler is done. Sets keep the order of insertion, so `queue` is first in, first out.
  readonly #queue = new Set<string>();
  readonly #dirty = new Set<string>();
  readonly #processing = new Set<string>();
  /** Keys that come later, each once: the earliest time wins. */
  readonly #delayed = new DueHeap<string>();
  /** One for all of them: armed for `#timerMs`, the earliest or before it. */
  #timer: Timer | undefined;
  #timerMs = 0;
  /** Failures in a row, of keys that have any. */
  readonly #failures = new Map<string, number>();

  readonly #options: WorkQueueOptions;
  #run: RunOptions | undefined;
  #ended = false;
  #onIdle: (() => void) | undefined;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
    this.#gauge(0);
  }

  /** Keys that a worker could take now. */
  get depth(): number {
    return this.#queue.size;
  }

  /** Keys being handled. */
  get processing(): number {
    return this.#processing.size;
  }

  add(key: string): void {
    if (this.#ended || this.#dirty.has(key)) return;
    this.#options.metrics?.workqueueAdds.inc({ queue: this.#options.name });
    this.#dirty.add(key);
    if (!this.#processing.has(key)) this.#enqueue(key);
  }

  /** Adds the key after `ms`, or earlier where it was to come earlier. */
  addAfter(key: string, ms: number): void {
    if (this.#ended) return;
    if (!(ms > 0)) {
      this.add(key);
      return;
    }
    const at = this.#options.clock.monotonic() + ms;
    const known = this.#delayed.timeOf(key);
    if (known !== undefined && known <= at) return;
    this.#delayed.set(key, at);
    this.#arm();
  }

  #arm(): void {
    const { nextMs } = this.#delayed;
    if (nextMs === undefined || (this.#timer && this.#timerMs <= nextMs)) return;
    this.#timer?.cancel();
    this.#timerMs = nextMs;
    const { clock } = this.#options;
    this.#timer = clock.setTimer(() => this.#addDue(), Math.max(0, nextMs - clock.monotonic()));
  }

  #addDue(): void {
    this.#timer = undefined;
    const nowMs = this.#options.clock.monotonic();
    for (let due = this.#delayed.take(nowMs); due; due = this.#delayed.take(nowMs)) this.add(due.key);
    this.#arm();
  }

  /** Counts a failure of the key and adds it after its backoff. */
  addRateLimited(key: string): void {
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    this.#options.metrics?.workqueueRetries.inc({ queue: this.#options.name });
    const ceiling = backoffCeiling(this.#options.backoff ?? RETRY_BACKOFF, failures);
    this.addAfter(key, ceiling / 2 + (ceiling / 2) * (this.#options.random ?? Math.random)());
  }

  /** The key's next failure starts from the base of the backoff. Does not take it out of the queue. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** Failures of a key in a row. */
  failures(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  /**
   * Handles keys until the signal aborts, then waits for the handlers under way. Keys that still wait are dropped, later
   * ones ignored: a queue runs once. Rejects only for a second run.
   */
  async run(options: RunOptions): Promise<void> {
    if (this.#run) throw new Error(`work queue ${this.#options.name} was run already`);
    this.#run = options;
    const { signal } = options;
    if (!signal.aborted) {
      this.#pump();
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    }
    this.#end();
    if (this.#processing.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
  }

  #end(): void {
    this.#ended = true;
    this.#timer?.cancel();
    this.#delayed.clear();
    this.#gauge(-this.#queue.size);
    this.#queue.clear();
    this.#dirty.clear();
  }

  #enqueue(key: string): void {
    this.#queue.add(key);
    this.#gauge(1);
    this.#pump();
  }

  #pump(): void {
    const run = this.#run;
    while (run && !run.signal.aborted && this.#processing.size < run.workers) {
      const next = this.#queue.values().next();
      if (next.done) return;
      this.#queue.delete(next.value);
      this.#gauge(-1);
      this.#dirty.delete(next.value);
      this.#processing.add(next.value);
      void this.#handle(next.value, run);
    }
  }

  async #handle(key: string, run: RunOptions): Promise<void> {
    const { clock, metrics, name } = this.#options;
    const started = clock.monotonic();
    const failuresBefore = this.failures(key);
    try {
      await run.handle(key, run.signal);
      // A handler that asked for a rate-limited repeat has not succeeded.
      if (this.failures(key) <= failuresBefore) this.forget(key);
    } catch (error) {
      if (!run.signal.aborted) this.#failed(key, error);
    } finally {
      metrics?.reconcileSeconds.observe({ queue: name }, (clock.monotonic() - started) / 1000);
      this.#done(key);
    }
  }

  #failed(key: string, error: unknown): void {
    const { logger, metrics, name } = this.#options;
    const fields = { queue: name, key, error: errorText(error) };
    if (error instanceof WaitError) {
      logger.info({ ...fields, reason: error.reason, retryInMs: error.retryAfterMs }, "waiting");
      this.addAfter(key, error.retryAfterMs);
      return;
    }
    metrics?.reconcileErrors.inc({ queue: name });
    if (error instanceof TerminalError) {
      logger.error({ ...fields, reason: error.reason }, "not retried until something changes");
      this.forget(key);
      return;
    }
    this.addRateLimited(key);
    logger.error({ ...fields, failures: this.failures(key) }, "failed, retried with backoff");
  }

  #done(key: string): void {
    this.#processing.delete(key);
    if (this.#dirty.has(key)) this.#enqueue(key);
    else this.#pump();
    if (this.#processing.size === 0) this.#onIdle?.();
  }

  /** Counted up and down, since queues of many Environments share a name. */
  #gauge(change: number): void {
    this.#options.metrics?.workqueueDepth.inc({ queue: this.#options.name }, change);
  }
}
