import { jitter, type Random } from "../core/backoff.ts";
import { type Clock, sleep } from "../core/clock.ts";
import type { Timing } from "../core/timing.ts";
import type { HintedQueue } from "./hints.ts";

/** What the pace is made from. */
export interface PollPaceContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Pick<
    Timing,
    "hintedIdleMs" | "idleAfterMs" | "idleMaxMs" | "pollIdleGapMs" | "statsIdleMs" | "statsPolledMs"
  >;
  /** What the Environment's group of requests asks of its idle members: milliseconds between two calls of one. */
  readonly intervalMs: () => number;
  /** Webhooks that may tell of work sooner; undefined: none do. */
  readonly hinted?: HintedQueue | undefined;
}

/** Nobody waits longer than this part of the time for which the queue has been empty, however many share the budget. */
const PATIENCE = 1 / 3;
/** While polls say that the queue is empty, statistics say nothing new: one reading for so many polls is for people. */
const POLLS_PER_STATS = 10;
const JITTER = 0.1;

/**
 * How often an Environment whose queue is empty looks at it. Alone in its group it keeps the shortest pause; in a large
 * group all idle ones slow down, so that those with work find the request budget free. The pause is never longer than
 * `idleMaxMs`, which bounds how late work is seen: by the next poll while a Pod is free, else by the next statistics. Where
 * webhooks are known to tell of work, that bound is `hintedIdleMs`. The first sign of work ends every pause.
 */
export class PollPace {
  readonly #context: PollPaceContext;
  #lastWorkMs: number;
  /** Whether work was seen since the start. */
  #hasWorked = false;
  #isPolling = false;
  #wakePolls: (() => void) | null = null;
  /** Somebody wants the next pause left out. */
  #isLookWanted = false;

  constructor(context: PollPaceContext) {
    this.#context = context;
    this.#lastWorkMs = context.clock.monotonic();
  }

  /** An item was polled, or statistics show some: the queue is not idle, and polls go on at once. */
  noteWork(): void {
    this.#lastWorkMs = this.#context.clock.monotonic();
    this.#hasWorked = true;
    this.#wakePolls?.();
  }

  /** Statistics were read, with work in them or without. */
  noteStats(showWork: boolean): void {
    this.#context.hinted?.sees(showWork);
    if (showWork) this.noteWork();
  }

  /** Polls are what shows work, not statistics. */
  get isPolling(): boolean {
    return this.#isPolling;
  }

  /** The queue is looked at. */
  noteLook(): void {
    this.#context.hinted?.looks();
  }

  /** Ends a pause between polls, or leaves the next one out: a poll under way may have been answered already. */
  look(): void {
    if (this.#wakePolls) this.#wakePolls();
    else this.#isLookWanted = this.#isPolling;
  }

  /** Pauses after a poll that brought nothing; not at all while work was there a moment ago. */
  async restAfterPoll(signal: AbortSignal): Promise<void> {
    this.#isPolling = true;
    const gapMs = this.#pollGapMs();
    const isLookWanted = this.#isLookWanted;
    this.#isLookWanted = false;
    if (gapMs === 0 || isLookWanted) return;
    const woken = new AbortController();
    this.#wakePolls = () => woken.abort();
    await sleep(this.#context.clock, this.#spread(gapMs), AbortSignal.any([signal, woken.signal]));
    this.#wakePolls = null;
  }

  /** No Pod is free, or nothing may be claimed: only statistics show work from now on. True when polls did until now. */
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
   * Of an Environment that has not seen work since its start nobody knows better than that it is idle, where many share the
   * budget: a thousand that start at once would otherwise use all of it up for minutes, and find out by a refusal that the
   * limit is not theirs alone.
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
