import { jitter, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { HintedQueue } from "./hints.ts";

/** The inputs of the pace. */
export interface PollPaceContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Pick<
    Timing,
    "hintedIdleMs" | "idleAfterMs" | "idleMaxMs" | "pollIdleGapMs" | "statsIdleMs" | "statsPolledMs"
  >;
  /**
   * The pause that the Environment's request budget group wants between two calls of an idle member, in milliseconds.
   */
  readonly intervalMs: () => number;
  /** Webhooks that may announce work sooner; undefined: none do. */
  readonly hinted?: HintedQueue | undefined;
}

/**
 * A pause is at most this share of the time for which the queue has been empty, however many Environments share the
 * budget.
 */
const PATIENCE = 1 / 3;
/** While polls show an empty queue, statistics only inform people: one reading for this many polls is enough. */
const POLLS_PER_STATS = 10;
const JITTER = 0.1;

/**
 * How often an Environment with an empty queue checks it. Alone in its group it uses the shortest pause. In a large
 * group all idle members slow down and leave the request budget to those with work. The pause never exceeds
 * `idleMaxMs`, which bounds how late work is noticed: by the next poll while a Pod is free, otherwise by the next
 * statistics. Where webhooks reliably announce work, the bound is `hintedIdleMs`. The first sign of work ends the
 * pause.
 */
export class PollPace {
  readonly #context: PollPaceContext;
  #lastWorkMs: number;
  /** Whether work was seen since the start. */
  #hasWorked = false;
  #isPolling = false;
  #wakePolls: (() => void) | null = null;
  /** Whether to skip the next pause. */
  #isLookWanted = false;

  constructor(context: PollPaceContext) {
    this.#context = context;
    this.#lastWorkMs = context.clock.monotonic();
  }

  /** Notes that a poll returned an item or that statistics show some: polls continue without pauses. */
  noteWork(): void {
    this.#lastWorkMs = this.#context.clock.monotonic();
    this.#hasWorked = true;
    this.#wakePolls?.();
  }

  /** Notes a reading of the statistics. */
  noteStats(showWork: boolean): void {
    this.#context.hinted?.sees(showWork);
    if (showWork) this.noteWork();
  }

  /** Whether polls show new work, rather than statistics. */
  get isPolling(): boolean {
    return this.#isPolling;
  }

  /** Notes a request for the queue. */
  noteLook(): void {
    this.#context.hinted?.looks();
  }

  /** Ends the current pause between polls, or skips the next one: a poll in flight may already have been answered. */
  look(): void {
    if (this.#wakePolls) this.#wakePolls();
    else this.#isLookWanted = this.#isPolling;
  }

  /**
   * Pauses after a poll that returned nothing. There is no pause soon after work was seen.
   * @param tookMs how long the poll waited for an item: that much of the pause has passed
   */
  async restAfterPoll(signal: AbortSignal, tookMs = 0): Promise<void> {
    this.#isPolling = true;
    const gapMs = Math.max(0, this.#spread(this.#pollGapMs()) - tookMs);
    const isLookWanted = this.#isLookWanted;
    this.#isLookWanted = false;
    if (gapMs === 0 || isLookWanted) return;
    const woken = new AbortController();
    this.#wakePolls = () => woken.abort();
    await sleep(this.#context.clock, gapMs, AbortSignal.any([signal, woken.signal]));
    this.#wakePolls = null;
  }

  /**
   * Notes that polls stop, since no Pod is free or claims are not allowed: only statistics show work now. Returns
   * whether polls ran until now.
   */
  pollsEnd(): boolean {
    const wasPolling = this.#isPolling;
    this.#isPolling = false;
    this.#isLookWanted = false;
    return wasPolling;
  }

  /** The pause after statistics that show no work. */
  statsGapMs(): number {
    const { statsIdleMs, statsPolledMs } = this.#context.timing;
    if (!this.#isPolling || this.#quietMs() <= this.#context.timing.idleAfterMs)
      return this.#spread(this.#gapMs(statsIdleMs));
    const polledGapMs = Math.min(this.#pollGapMs(), this.#context.timing.idleMaxMs);
    return this.#spread(Math.max(statsPolledMs, polledGapMs * POLLS_PER_STATS));
  }

  #pollGapMs(): number {
    const { idleAfterMs, pollIdleGapMs } = this.#context.timing;
    return this.#quietMs() <= idleAfterMs ? 0 : this.#gapMs(pollIdleGapMs);
  }

  #gapMs(leastMs: number): number {
    const { hintedIdleMs, idleMaxMs } = this.#context.timing;
    const usualMs = Math.min(this.#context.intervalMs(), idleMaxMs);
    const wantedMs = this.#context.hinted?.isTrusted ? hintedIdleMs : usualMs;
    return Math.max(leastMs, Math.min(wantedMs, this.#quietMs() * PATIENCE));
  }

  /**
   * Time without work. In a shared budget, an Environment that has seen no work since its start counts as idle at once.
   * Otherwise a thousand that start together would use up the budget for minutes, and learn from refusals that they
   * share it.
   */
  #quietMs(): number {
    if (!this.#hasWorked && this.#context.intervalMs() > this.#context.timing.pollIdleGapMs)
      return Number.POSITIVE_INFINITY;
    return this.#context.clock.monotonic() - this.#lastWorkMs;
  }

  #spread(ms: number): number {
    return jitter(ms, JITTER, this.#context.random);
  }
}
