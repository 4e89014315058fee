import { Backoff, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { Notifier } from "../core/notifier.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { QueueStats } from "../work/types.ts";
import type { ApiHealth } from "./api-health.ts";
import { listQueuedSessions, type QueuedSessions } from "./live-items.ts";

/** The pause after a reading, per page: a list may be long, and all Environments share the request budget. */
export const PAGE_REST_MS = 2_000;

/** How long a reading says that a session's item waits. If it no longer does, its Pod is only kept for longer. */
const SHOWN_MS = 60_000;

/** How long a reading says that no item of a session waits. Meanwhile one may have arrived. */
const ABSENT_MS = 10_000;

/** For how long a question may stay open before it counts as one that the list can't answer. */
const BLIND_AFTER_MS = 60_000;

export interface WaitingSessionsOptions {
  readonly context: {
    readonly clock: Clock;
    readonly random: Random;
    readonly work: () => WorkApiClient;
    readonly points: Points<"queue.list">;
    readonly timing: Pick<Timing, "retryBaseMs" | "retryMaxMs">;
  };
  readonly health: Pick<ApiHealth, "attempt">;
  /** Called when more may be known than before. */
  readonly onChange: () => void;
}

/**
 * Which sessions have an item in the queue, also of those whose items no poll returns. It reads the list of work items,
 * but only after a question that it can't answer, and at most one page in two seconds.
 */
export class WaitingSessions {
  readonly #options: WaitingSessionsOptions;
  readonly #asked = new Notifier();
  #isWanted = false;
  #read: Pick<QueuedSessions, "sessions" | "isComplete"> = { sessions: new Set(), isComplete: false };
  /** When the last reading was requested (monotonic). */
  #readMs = Number.NEGATIVE_INFINITY;
  /** No reading before this (monotonic). */
  #nextMs = Number.NEGATIVE_INFINITY;
  /** Sessions that were served since the last reading. */
  readonly #served = new Set<string>();
  /** The number of waiting items in the last statistics. */
  #total = 0;
  /** Since when (monotonic) questions are open, and when the last one came. */
  #openSinceMs: number | null = null;
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(options: WaitingSessionsOptions) {
    this.#options = options;
  }

  /** Whether an item of this session waits in the queue. Null: not known; the list is read, and then `onChange` called. */
  waits(sessionId: string): boolean | null {
    const ageMs = this.#nowMs - this.#readMs;
    const { sessions, isComplete } = this.#read;
    const isServed = this.#served.has(sessionId);
    if (!isServed && ageMs <= SHOWN_MS && sessions.has(sessionId)) return true;
    if (!isServed && ageMs <= ABSENT_MS && isComplete) return false;
    this.#ask();
    return null;
  }

  /**
   * Whether an item waits of any session that matches, as far as known. Takes as long as the list has sessions, however
   * many others sleep. False if that is not known, too: the list is read, and then `onChange` called.
   */
  waitsAny(matches: (sessionId: string) => boolean): boolean {
    const ageMs = this.#nowMs - this.#readMs;
    const { sessions, isComplete } = this.#read;
    if (ageMs <= SHOWN_MS) {
      for (const id of sessions) if (!this.#served.has(id) && matches(id)) return true;
    }
    if (ageMs > ABSENT_MS || !isComplete || this.#served.size > 0) this.#ask();
    return false;
  }

  /** Whether the list could not answer for a minute: it can't be read, or it is too long. */
  get isBlind(): boolean {
    return this.#openSinceMs !== null && this.#nowMs - this.#openSinceMs >= BLIND_AFTER_MS;
  }

  /** A claim of this session ended: the item that was shown no longer waits. */
  served(sessionId: string): void {
    this.#served.add(sessionId);
  }

  /** Statistics may show that nothing waits, or that there is more than the list has shown. */
  noteStats({ depth, pending }: Pick<QueueStats, "depth" | "pending">, readMs: number): void {
    const [before, isOpen] = [this.#total, this.#openSinceMs !== null];
    this.#total = depth + pending;
    if (this.#total === 0) this.#take({ sessions: new Set(), isComplete: true }, readMs);
    else if (this.#total > before) this.#read = { ...this.#read, isComplete: false };
    if (this.#total > before || (this.#total === 0 && isOpen)) this.#options.onChange();
  }

  /** Reads until the signal aborts, each time after `mayRead` allows a request. Never throws. */
  async run(signal: AbortSignal, mayRead: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock, random, work, points, timing } = this.#options.context;
    const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    while (!signal.aborted) {
      await this.#asked.until(() => this.#isWanted, signal);
      const waitMs = this.#nextMs - this.#nowMs;
      if (waitMs > 0) await sleep(clock, waitMs, signal);
      await mayRead(signal);
      if (signal.aborted) return;
      this.#isWanted = false;
      const readMs = this.#nowMs;
      const attempt = this.#options.health.attempt("list");
      try {
        const list = () => listQueuedSessions(work(), signal);
        const read = await points.run("queue.list", {}, list);
        attempt.answered();
        backoff.reset();
        this.#nextMs = this.#nowMs + read.pages * PAGE_REST_MS;
        this.#take(read, readMs);
      } catch (error) {
        if (signal.aborted) return;
        this.#nextMs = this.#nowMs + attempt.failed(error, backoff);
      }
      this.#options.onChange();
    }
  }

  #ask(): void {
    if (this.#openSinceMs === null || this.#nowMs - this.#askedMs >= BLIND_AFTER_MS) this.#openSinceMs = this.#nowMs;
    this.#askedMs = this.#nowMs;
    this.#isWanted = true;
    this.#asked.notify();
  }

  #take(read: Pick<QueuedSessions, "sessions" | "isComplete">, readMs: number): void {
    if (readMs < this.#readMs) return;
    this.#read = read;
    this.#readMs = readMs;
    this.#served.clear();
    if (read.isComplete) this.#openSinceMs = null;
  }

  get #nowMs(): number {
    return this.#options.context.clock.monotonic();
  }
}
