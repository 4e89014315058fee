import type { Clock, Timer } from "../core/clock.ts";
import { Slots } from "../core/slots.ts";
import type { Metrics } from "../observe/metrics.ts";
import { type Turn, Turns } from "./turns.ts";

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
  /** A member that asked for nothing so long is gone, or stopped asking. */
  readonly memberMs: number;
}

export const DEFAULT_BUDGET_LIMITS: BudgetLimits = {
  // 1,200 reads a minute per organization is what the platform documents.
  initialRate: 20,
  // Enough to notice that the limit is gone, slow enough for the tightest one.
  minRate: 0.5,
  // Larger organizations have larger limits: the rate finds them by itself, but not without a bound.
  maxRate: 200,
  increasePerSecond: 1,
  // A quarter of a minute's worth: limits are counted by the minute, and a burst of a hundred items is two hundred requests.
  burstSeconds: 15,
  // The longest Retry-After that is honoured, and some turns of a slow budget.
  maxWaitMs: 10 * 60_000,
  // Twice the longest pause of an idle one.
  memberMs: 120_000,
};

/** What waiting calls get of the rate even while protocol calls use up all of it: nobody starves. */
const WAITERS_SHARE = 1 / 4;
const HALF = 0.5;
/** Calls that must not wait may use up so much in advance; more would be paid off by those who wait, for long. */
const DEBT_SECONDS = 1;
const SECOND_MS = 1_000;
/** What all members together may use of the rate while all are idle: the rest is for those with work. */
const IDLE_SHARE = 1 / 2;
/** A request sent so soon after somebody had to wait was sent at full use of the rate. */
const USED_UP_FOR_MS = 1_000;
/** What is left by rounding must not arm a timer that comes a hair too early, again and again. */
const ROUNDING_MS = 1e-6;

/**
 * Beats of all members under way. A beat's bound of 1.5 s counts from when it is sent: more at a time than there are
 * connections, or than the server answers in that time, would fail without having been sent. So many are 1,280 a second at
 * answers within 100 ms, and a server need answer no more than 85 a second to have none of them run into its bound.
 */
const MOST_BEATS = 128;

/** The budget let nobody through in time. */
export class BudgetExhausted extends Error {
  readonly retryAfterMs: number;
  constructor(retryAfterMs: number) {
    super("the request budget of the group is exhausted");
    this.name = "BudgetExhausted";
    this.retryAfterMs = retryAfterMs;
  }
}

interface Waiter extends Turn {
  readonly admit: () => void;
}

/** When a member asked last. */
interface Heard {
  readonly tenant: string;
  readonly atMs: number;
}

/**
 * The rate at which the members of one group (same origin, same `budgetGroup`) send requests: additive increase, halved
 * on 429. Polls, statistics and slow lists wait for their turn; the calls that keep claims and leases true (ack,
 * heartbeat, stop, list for a decision) are counted and never wait: late, they do harm.
 *
 * Members take turns by tenant, then among those of the tenant (turns.ts).
 *
 * Invariants: a timer is armed if and only if somebody waits; `#tokens` lies within [-1 s worth, burst]; `#members` counts by
 * tenant those in `#heard`.
 */
export class Budget {
  /** Room for beats, which never wait for the rate. */
  readonly beats = new Slots(MOST_BEATS);
  readonly #clock: Clock;
  readonly #limits: BudgetLimits;
  readonly #group: string;
  readonly #metrics: Metrics | undefined;
  readonly #turns = new Turns<Waiter>();
  /** When each member asked last, in that order. */
  readonly #heard = new Map<string, Heard>();
  readonly #members = new Map<string, number>();
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
    return this.#turns.size;
  }

  /**
   * How far apart the calls of an idle member of this tenant should be, in milliseconds: all together, were all idle, then
   * use no more than their share of the rate, and of the one that the platform documents; and each tenant the same part.
   */
  idleIntervalMs(tenant = ""): number {
    const goneMs = this.#clock.monotonic() - this.#limits.memberMs;
    for (const [member, { tenant: of, atMs }] of this.#heard) {
      if (atMs >= goneMs) break;
      if (!this.#turns.waits({ tenant: of, member })) this.#forget(member, of);
    }
    // A rate that was raised by a rush is one that nobody refused yet: idle members must not keep it used up.
    const rate = Math.min(this.#rate, this.#limits.initialRate);
    const members = this.#members.get(tenant) ?? 0;
    return (members * this.#members.size * SECOND_MS) / (rate * IDLE_SHARE);
  }

  /** Counts a call that must not wait. */
  countUrgent(): void {
    this.#refill();
    if (this.#tokens < 1) this.#usedUpAt = this.#clock.monotonic();
    this.#spend();
  }

  /**
   * Waits for this member's turn. `tenant`: what it shares its turns with.
   * @returns false when `signal` cut it short; nothing was spent then.
   * @throws BudgetExhausted
   */
  async acquire(member: string, signal?: AbortSignal, tenant = ""): Promise<boolean> {
    if (signal?.aborted) return false;
    this.#hear(member, tenant);
    if (this.#turns.isEmpty && this.#takeTurn()) return true;
    const since = this.#clock.monotonic();
    this.#usedUpAt = since;
    try {
      return await this.#wait({ tenant, member }, signal);
    } finally {
      this.#hear(member, tenant);
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

  #hear(member: string, tenant: string): void {
    if (!this.#heard.delete(member)) this.#members.set(tenant, (this.#members.get(tenant) ?? 0) + 1);
    this.#heard.set(member, { tenant, atMs: this.#clock.monotonic() });
  }

  #forget(member: string, tenant: string): void {
    this.#heard.delete(member);
    const left = (this.#members.get(tenant) ?? 0) - 1;
    if (left > 0) this.#members.set(tenant, left);
    else this.#members.delete(tenant);
  }

  #wait(turn: Turn, signal: AbortSignal | undefined): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const settle = (act: () => void) => {
      limit.cancel();
      signal?.removeEventListener("abort", onAbort);
      act();
    };
    const waiter: Waiter = { ...turn, admit: () => settle(() => resolve(true)) };
    const giveUp = (act: () => void) => {
      this.#turns.remove(waiter);
      settle(act);
      this.#arm();
    };
    const onAbort = () => giveUp(() => resolve(false));
    const limit = this.#clock.setTimer(
      () => giveUp(() => reject(new BudgetExhausted(this.#delayMs()))),
      this.#limits.maxWaitMs,
    );
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#turns.add(waiter);
    this.#arm();
    return promise;
  }

  /** Lets through whoever's turn has come. */
  #admit(): void {
    while (!this.#turns.isEmpty && this.#takeTurn()) this.#turns.next()?.admit();
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
    this.#tokens = Math.max(-Math.max(1, this.#rate * DEBT_SECONDS), this.#tokens - 1);
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
    if (this.#turns.isEmpty) return;
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

/**
 * The budgets of the process: one per origin and group. Each lives as long as somebody has it: whoever writes Environments
 * chooses groups, and could name a new one every second.
 */
export class Budgets {
  readonly #options: { clock: Clock; limits?: Partial<BudgetLimits>; metrics?: Metrics };
  readonly #budgets = new Map<string, WeakRef<Budget>>();
  readonly #gone = new FinalizationRegistry<{ key: string; group: string }>((of) => this.#forget(of));

  constructor(options: { clock: Clock; limits?: Partial<BudgetLimits>; metrics?: Metrics }) {
    this.#options = options;
  }

  /** The same budget for every spelling of one origin. @throws TypeError for what is no URL. */
  get(origin: string, group: string): Budget {
    const key = `${new URL(origin).origin} ${group}`;
    const known = this.#budgets.get(key)?.deref();
    if (known) return known;
    const budget = new Budget({ ...this.#options, group });
    this.#budgets.set(key, new WeakRef(budget));
    this.#gone.register(budget, { key, group });
    return budget;
  }

  /** How many there are. */
  get size(): number {
    return this.#budgets.size;
  }

  #forget({ key, group }: { key: string; group: string }): void {
    // A new one may have taken its place before it was collected.
    if (this.#budgets.get(key)?.deref() === undefined) this.#budgets.delete(key);
    const isLive = [...this.#budgets.keys()].some((other) => other.endsWith(` ${group}`));
    if (isLive) return;
    this.#options.metrics?.workBudgetRate.remove({ group });
    this.#options.metrics?.workBudgetWaitSeconds.remove({ group });
  }
}
