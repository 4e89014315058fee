import type { Clock, Timer } from "../core/clock.ts";
import type { Metrics } from "../observe/metrics.ts";

/** Numbers of a budget; every one has a default with its reason below. Rates are requests a second. */
export interface BudgetLimits {
  readonly initialRate: number;
  readonly minRate: number;
  readonly maxRate: number;
  /** What the rate gains in a second in which it was used up and nobody was refused. */
  readonly increasePerSecond: number;
  /** How many seconds' worth of requests may go out at once after a pause. */
  readonly burstSeconds: number;
  /** A call that is not let through in this time fails. */
  readonly maxWaitMs: number;
}

export const DEFAULT_BUDGET_LIMITS: BudgetLimits = {
  // 1,200 reads a minute per organization is what the platform documents.
  initialRate: 20,
  // Enough to notice that the limit is gone, slow enough for the tightest one.
  minRate: 0.5,
  // Larger organizations have larger limits: the rate finds them by itself, but not without a bound.
  maxRate: 200,
  increasePerSecond: 1,
  burstSeconds: 1,
  // The longest Retry-After that is honoured, and some turns of a slow budget.
  maxWaitMs: 10 * 60_000,
};

/** What waiting calls get of the rate even while protocol calls use up all of it: nobody starves. */
const WAITERS_SHARE = 1 / 4;
const HALF = 0.5;
const SECOND_MS = 1_000;
/** What all members together may use of the rate while all are idle: the rest is for those with work. */
const IDLE_SHARE = 1 / 2;
/** A member that asked for nothing so long is gone, or stopped asking: twice the longest pause of an idle one. */
const MEMBER_MS = 120_000;
/** A request sent so soon after somebody had to wait was sent at full use of the rate. */
const USED_UP_FOR_MS = 1_000;
/** What is left by rounding must not arm a timer that comes a hair too early, again and again. */
const ROUNDING_MS = 1e-6;

/** The budget let nobody through in time. */
export class BudgetExhausted extends Error {
  readonly retryAfterMs: number;
  constructor(retryAfterMs: number) {
    super("the request budget of the group is exhausted");
    this.name = "BudgetExhausted";
    this.retryAfterMs = retryAfterMs;
  }
}

interface Waiter {
  readonly member: string;
  readonly admit: () => void;
}

/**
 * The rate at which the members of one group (same origin, same `budgetGroup`) send requests: additive increase, halved
 * on 429. Polls, statistics and slow lists wait for their turn; the calls that keep claims and leases true (ack,
 * heartbeat, stop, list for a decision) are counted and never wait: late, they do harm.
 *
 * Invariants: `#queues` holds only members with waiters, in the order of their turns (round robin, so one busy member
 * cannot starve others); a timer is armed if and only if somebody waits; `#tokens` lies within [-burst, burst].
 */
export class Budget {
  readonly #clock: Clock;
  readonly #limits: BudgetLimits;
  readonly #group: string;
  readonly #metrics: Metrics | undefined;
  readonly #queues = new Map<string, Waiter[]>();
  /** When each member asked last, in that order. */
  readonly #heard = new Map<string, number>();
  #rate: number;
  #tokens: number;
  #reserve = 1;
  #refilledAt: number;
  #heldUntil = Number.NEGATIVE_INFINITY;
  #halvedAt = Number.NEGATIVE_INFINITY;
  /** When somebody last had to wait: only a rate that is used up is raised. */
  #usedUpAt = Number.NEGATIVE_INFINITY;
  #timer: Timer | undefined;

  constructor(options: { clock: Clock; group?: string; limits?: Partial<BudgetLimits>; metrics?: Metrics }) {
    this.#clock = options.clock;
    this.#limits = { ...DEFAULT_BUDGET_LIMITS, ...options.limits };
    this.#group = options.group ?? "default";
    this.#metrics = options.metrics;
    this.#rate = this.#limits.initialRate;
    this.#tokens = this.#burst();
    this.#refilledAt = this.#clock.monotonic();
    this.#showRate();
  }

  /** Requests a second, now. */
  get rate(): number {
    return this.#rate;
  }

  /** Calls that wait for their turn. */
  get waiting(): number {
    let sum = 0;
    for (const queue of this.#queues.values()) sum += queue.length;
    return sum;
  }

  /**
   * How far apart the calls of an idle member should be, in milliseconds: all together, were all idle, then use no more
   * than their share of the rate, and of the one that the platform documents.
   */
  get idleIntervalMs(): number {
    const goneMs = this.#clock.monotonic() - MEMBER_MS;
    for (const [member, heardMs] of this.#heard) {
      if (heardMs >= goneMs) break;
      if (!this.#queues.has(member)) this.#heard.delete(member);
    }
    // A rate that was raised by a rush is one that nobody refused yet: idle members must not keep it used up.
    const rate = Math.min(this.#rate, this.#limits.initialRate);
    return (this.#heard.size * SECOND_MS) / (rate * IDLE_SHARE);
  }

  /** Counts a call that must not wait. */
  countUrgent(): void {
    this.#refill();
    if (this.#tokens < 1) this.#usedUpAt = this.#clock.monotonic();
    this.#spend();
  }

  /**
   * Waits for this member's turn.
   * @returns false when `signal` cut it short; nothing was spent then.
   * @throws BudgetExhausted
   */
  async acquire(member: string, signal?: AbortSignal): Promise<boolean> {
    if (signal?.aborted) return false;
    this.#hear(member);
    if (this.#queues.size === 0 && this.#takeTurn()) return true;
    const since = this.#clock.monotonic();
    this.#usedUpAt = since;
    try {
      return await this.#wait(member, signal);
    } finally {
      this.#hear(member);
      this.#usedUpAt = this.#clock.monotonic();
      this.#metrics?.workBudgetWaitSeconds.inc({ group: this.#group }, (this.#clock.monotonic() - since) / SECOND_MS);
    }
  }

  /** Learns from an answer. `sentAtMs` is when its request was sent, on the monotonic clock. */
  onAnswer(answer: {
    readonly status: number;
    readonly sentAtMs: number;
    readonly retryAfterMs?: number | undefined;
  }): void {
    if (answer.status === 429) this.#onRefusal(answer.sentAtMs, answer.retryAfterMs);
    else if (answer.status < 500 && answer.sentAtMs <= this.#usedUpAt + USED_UP_FOR_MS) {
      // A share for each answer sums up to the increase for a second at full use.
      this.#setRate(this.#rate + this.#limits.increasePerSecond / this.#rate);
    }
  }

  #onRefusal(sentAtMs: number, retryAfterMs: number | undefined): void {
    this.#refill();
    // Requests that were under way at the halving tell nothing about the halved rate.
    if (sentAtMs > this.#halvedAt) {
      this.#halvedAt = this.#clock.monotonic();
      this.#setRate(this.#rate * HALF);
      this.#tokens = Math.min(this.#tokens, 0);
      this.#reserve = 0;
    }
    if (retryAfterMs !== undefined) {
      this.#heldUntil = Math.max(this.#heldUntil, this.#clock.monotonic() + retryAfterMs);
    }
    this.#arm();
  }

  #hear(member: string): void {
    this.#heard.delete(member);
    this.#heard.set(member, this.#clock.monotonic());
  }

  #wait(member: string, signal: AbortSignal | undefined): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const settle = (act: () => void) => {
      limit.cancel();
      signal?.removeEventListener("abort", onAbort);
      act();
    };
    const waiter: Waiter = { member, admit: () => settle(() => resolve(true)) };
    const giveUp = (act: () => void) => {
      this.#remove(waiter);
      settle(act);
      this.#arm();
    };
    const onAbort = () => giveUp(() => resolve(false));
    const limit = this.#clock.setTimer(
      () => giveUp(() => reject(new BudgetExhausted(this.#delayMs()))),
      this.#limits.maxWaitMs,
    );
    signal?.addEventListener("abort", onAbort, { once: true });
    const queue = this.#queues.get(member);
    if (queue) queue.push(waiter);
    else this.#queues.set(member, [waiter]);
    this.#arm();
    return promise;
  }

  #remove(waiter: Waiter): void {
    const queue = this.#queues.get(waiter.member);
    const at = queue?.indexOf(waiter) ?? -1;
    if (!queue || at < 0) return;
    queue.splice(at, 1);
    if (queue.length === 0) this.#queues.delete(waiter.member);
  }

  /** Lets through whoever's turn has come. */
  #admit(): void {
    for (const [member, queue] of this.#queues) {
      if (!this.#takeTurn()) break;
      const waiter = queue.shift();
      // To the end of the round: a Map iterates in the order of insertion, and goes on to what is put back.
      this.#queues.delete(member);
      if (queue.length > 0) this.#queues.set(member, queue);
      waiter?.admit();
    }
    this.#arm();
  }

  /** One request's worth for a call that may wait, if there is one now. */
  #takeTurn(): boolean {
    this.#refill();
    if (this.#delayMs() > 0) return false;
    this.#reserve = Math.max(0, this.#reserve - 1);
    this.#spend();
    return true;
  }

  #spend(): void {
    this.#tokens = Math.max(-this.#burst(), this.#tokens - 1);
  }

  #refill(): void {
    const now = this.#clock.monotonic();
    const seconds = Math.max(0, now - this.#refilledAt) / SECOND_MS;
    this.#refilledAt = now;
    this.#tokens = Math.min(this.#burst(), this.#tokens + seconds * this.#rate);
    this.#reserve = Math.min(1, this.#reserve + seconds * this.#rate * WAITERS_SHARE);
  }

  /** Milliseconds until the next turn, as things stand. */
  #delayMs(): number {
    const hold = this.#heldUntil - this.#clock.monotonic();
    const byTokens = ((1 - this.#tokens) / this.#rate) * SECOND_MS;
    const byReserve = ((1 - this.#reserve) / (this.#rate * WAITERS_SHARE)) * SECOND_MS;
    const delay = Math.max(0, hold, Math.min(byTokens, byReserve));
    return delay < ROUNDING_MS ? 0 : delay;
  }

  #arm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#queues.size === 0) return;
    this.#refill();
    this.#timer = this.#clock.setTimer(() => this.#admit(), Math.ceil(this.#delayMs()));
  }

  #burst(): number {
    return Math.max(1, this.#rate * this.#limits.burstSeconds);
  }

  #setRate(rate: number): void {
    this.#rate = Math.min(this.#limits.maxRate, Math.max(this.#limits.minRate, rate));
    this.#showRate();
  }

  #showRate(): void {
    this.#metrics?.workBudgetRate.set({ group: this.#group }, this.#rate);
  }
}

/** The budgets of the process: one per origin and group. */
export class Budgets {
  readonly #options: { clock: Clock; limits?: Partial<BudgetLimits>; metrics?: Metrics };
  readonly #budgets = new Map<string, Budget>();

  constructor(options: { clock: Clock; limits?: Partial<BudgetLimits>; metrics?: Metrics }) {
    this.#options = options;
  }

  /** The same budget for every spelling of one origin. @throws TypeError for what is no URL. */
  get(origin: string, group: string): Budget {
    const key = `${new URL(origin).origin} ${group}`;
    let budget = this.#budgets.get(key);
    if (!budget) {
      budget = new Budget({ ...this.#options, group });
      this.#budgets.set(key, budget);
    }
    return budget;
  }
}
