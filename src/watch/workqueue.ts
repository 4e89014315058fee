import { type BackoffPolicy, backoffCeiling, type Random } from "../core/backoff.ts";
import type { Clock, Timer } from "../core/clock.ts";
import { DueHeap } from "../core/due-heap.ts";
import { errorText, TerminalError, WaitError } from "../core/errors.ts";
import { isConflict } from "../kube/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";

/**
 * The first retry is early, because most failures are short races. A key that keeps failing is retried at most once a
 * minute.
 */
const RETRY_BACKOFF: BackoffPolicy = { baseMs: 200, maxMs: 60_000 };

/** Conflicts in a row of one key that are logged as information; more of them are a fault. */
const CONFLICTS_EXPECTED = 3;

export interface WorkQueueOptions {
  /** Label in metrics and logs. */
  readonly name: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  readonly backoff?: BackoffPolicy;
  readonly random?: Random;
}

export interface RunOptions {
  /** The number of keys handled concurrently. */
  readonly workers: number;
  readonly handle: (key: string, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * A queue of keys, modeled on client-go's work queue.
 *
 * Guaranteed: a key is never handled twice at the same time. A key added while it waits is handled once. A key added
 * while it is handled is handled again afterwards. Keys are handled in the order they were added. Not guaranteed: one
 * handling per add, or any timing.
 *
 * The handler's error decides what happens next. After a WaitError, the key is requeued after the error's delay. A
 * TerminalError is logged, and the key waits for the next add. After any other error, the key is requeued with backoff.
 * A handler that returns resets the key's failures.
 */
export class WorkQueue {
  // A key is in `dirty` when it must be handled, in `processing` while it is handled, and in `queue` when a worker can
  // take it. Invariants: queue ⊆ dirty, and queue ∩ processing = ∅. A key that is dirty and processing moves to `queue`
  // when its handler is done. Sets keep insertion order, so `queue` is first in, first out.
  readonly #queue = new Set<string>();
  readonly #dirty = new Set<string>();
  readonly #processing = new Set<string>();
  /** Keys to add later, each once: the earliest time wins. */
  readonly #delayed = new DueHeap<string>();
  /** One timer for all delayed keys, set for `#timerMs`, which is at or before the earliest key's time. */
  #timer: Timer | undefined;
  #timerMs = 0;
  /** Consecutive failures by key; only keys that have any. */
  readonly #failures = new Map<string, number>();

  readonly #options: WorkQueueOptions;
  #run: RunOptions | undefined;
  #ended = false;
  #onIdle: (() => void) | undefined;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
    this.#gauge(0);
  }

  /** The number of keys that a worker could take now. */
  get depth(): number {
    return this.#queue.size;
  }

  /** The number of keys being handled. */
  get processing(): number {
    return this.#processing.size;
  }

  add(key: string): void {
    if (this.#ended || this.#dirty.has(key)) return;
    this.#dirty.add(key);
    if (!this.#processing.has(key)) this.#enqueue(key);
  }

  /** Adds the key after `ms`, unless it is already scheduled sooner. */
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

  /** Counts a failure of the key and adds the key after its backoff. */
  addRateLimited(key: string): void {
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    this.#options.metrics?.workqueueRetries.inc({ queue: this.#options.name });
    const ceiling = backoffCeiling(this.#options.backoff ?? RETRY_BACKOFF, failures);
    this.addAfter(key, ceiling / 2 + (ceiling / 2) * (this.#options.random ?? Math.random)());
  }

  /** Makes the key's next failure start from the base of the backoff. The key stays in the queue. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** The number of consecutive failures of a key. */
  failures(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  /**
   * Handles keys until the signal aborts, then waits for the running handlers. Drops the keys that still wait and
   * ignores later ones. A queue can run only once: a second call rejects.
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
      // A handler that called `addRateLimited` has not succeeded.
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
      logger.error({ ...fields, reason: error.reason }, "a reconcile failed; Berth tries again when something changes");
      this.forget(key);
      return;
    }
    this.addRateLimited(key);
    const failures = this.failures(key);
    // Another client was faster, and the watch has not shown its change yet.
    const isRace = isConflict(error) && failures <= CONFLICTS_EXPECTED;
    const level = isRace ? "info" : "error";
    logger[level]({ ...fields, failures }, "a reconcile failed; Berth tries again with backoff");
  }

  #done(key: string): void {
    this.#processing.delete(key);
    if (this.#dirty.has(key)) this.#enqueue(key);
    else this.#pump();
    if (this.#processing.size === 0) this.#onIdle?.();
  }

  /** Changed by increments, because the queues of several Environments share a name. */
  #gauge(change: number): void {
    this.#options.metrics?.workqueueDepth.inc({ queue: this.#options.name }, change);
  }
}
