import { type Clock, SECOND_MS, type Timer } from "../core/clock.ts";
import { Slots } from "../core/slots.ts";
import type { Metrics } from "../observe/metrics.ts";
import { MAX_RETRY_AFTER_MS } from "./errors.ts";
import { type Turn, Turns } from "./turns.ts";

/** The limits of a budget. The reason for each is at its default below. Rates are in requests per second. */
export interface BudgetLimits {
  readonly initialRate: number;
  readonly minRate: number;
  readonly maxRate: number;
  /** How much the rate grows per second in which it was used up and no request got a 429. */
  readonly increasePerSecond: number;
  /** How many seconds' worth of requests may be sent at once after a pause. */
  readonly burstSeconds: number;
  /** A call that waits longer than this fails. */
  readonly maxWaitMs: number;
  /** A member without a call for this long is dropped. */
  readonly memberMs: number;
}

export const DEFAULT_BUDGET_LIMITS: BudgetLimits = {
  // The platform documents 1,200 reads a minute per organization.
  initialRate: 20,
  // Fast enough to notice that a limit is gone, slow enough for the strictest limit.
  minRate: 0.5,
  // Larger organizations have larger limits. The rate grows up to them, but not without bound.
  maxRate: 200,
  increasePerSecond: 1,
  // 15 seconds' worth: the platform counts by the minute, and a burst of a hundred items takes two hundred requests.
  burstSeconds: 15,
  // The longest Retry-After that is honored, plus some turns of a slow budget.
  maxWaitMs: 10 * 60_000,
  // Twice the longest pause of an idle member.
  memberMs: 120_000,
};

/** The share of the rate that waiting calls get even while protocol calls use all of it, so that none starve. */
const WAITERS_SHARE = 1 / 4;
const HALF = 0.5;
/** Urgent calls may overdraw the budget by this much. A larger debt would delay the waiting calls for long. */
const DEBT_SECONDS = 1;
/** The share of the rate that all members together use while all are idle. The rest is for members with work. */
const IDLE_SHARE = 1 / 2;
/** A request sent this soon after a call had to wait counts as sent at full use of the rate. */
const USED_UP_FOR_MS = 1_000;
/** A 429 counts as recent for the longest time that a Retry-After can hold its member. */
const REFUSED_FOR_MS = MAX_RETRY_AFTER_MS;
/** How often one tenant's 429s can halve the rate in a row. In between, the others regain ten requests per second. */
const COUNTS_EVERY_MS = 10_000;
/** Tolerance for rounding errors, which would otherwise arm a timer slightly too early, again and again. */
const ROUNDING_MS = 1e-6;

/**
 * Concurrent heartbeats of all members. A heartbeat's timeout of 1.5 s starts when it is sent. More heartbeats than
 * there are connections, or than the server answers in that time, would fail without having been sent. With answers
 * within 100 ms, 128 at a time are 1,280 a second. A server that answers 85 a second keeps all of them within their
 * timeout.
 */
const MOST_BEATS = 128;

/** The budget did not admit the call in time. */
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
  /** Waits until the member's Retry-After has passed, then for a turn. */
  readonly queue: () => void;
}

const NEVER = Number.NEGATIVE_INFINITY;
const NEVER_REFUSED = { refusedMs: NEVER, halvedMs: NEVER };

interface Refusals {
  /** When the last 429 arrived. */
  refusedMs: number;
  /** When the last 429 that halved the rate arrived. */
  halvedMs: number;
}

interface Member extends Refusals {
  readonly tenant: string;
  /** When it was last active: a call began or ended, or got a 429. */
  askedMs: number;
  /** When its Retry-After ends. */
  heldUntilMs: number;
}

interface Tenant extends Refusals {
  members: number;
}

/**
 * The rate at which the members of one group (same origin, same `budgetGroup`) send requests: additive increase, halved
 * on a 429. Polls, statistics and slow lists wait for their turn. The calls that keep claims and leases correct (ack,
 * heartbeat, stop, list for a decision) are counted but never wait, because a late one does harm. A Retry-After holds
 * only the member that got it.
 *
 * Tenants take turns, then the members of a tenant (turns.ts).
 *
 * Invariants: a timer is armed if and only if a call waits for its turn; `#turns` contains no call of a held member;
 * `#tokens` is within [-1 s worth, burst]; `#tenants` counts the members in `#members`.
 */
export class Budget {
  /** Slots for heartbeats, which never wait for the rate. */
  readonly beats = new Slots(MOST_BEATS);
  readonly #clock: Clock;
  readonly #limits: BudgetLimits;
  readonly #group: string;
  readonly #metrics: Metrics | undefined;
  readonly #turns = new Turns<Waiter>();
  /** Ordered by their last call. */
  readonly #members = new Map<string, Member>();
  readonly #tenants = new Map<string, Tenant>();
  #rate: number;
  #tokens: number;
  #reserve = 1;
  #refilledAt: number;
  #halvedAt = NEVER;
  #halvedBy: Refusals | undefined;
  /** When a call last had to wait. The rate grows only while it is used up. */
  #usedUpAt = NEVER;
  #timer: Timer | undefined;
  #waiting = 0;

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

  /** The current rate in requests per second. */
  get rate(): number {
    return this.#rate;
  }

  /** The number of calls that wait for their turn or are held. */
  get waiting(): number {
    return this.#waiting;
  }

  /**
   * The interval between calls of an idle member of this tenant, in milliseconds. If all members were idle, they would
   * together use only their share of the rate, and of the documented one. Each tenant gets the same part.
   */
  idleIntervalMs(tenant = ""): number {
    this.#dropInactive();
    // A rate above the initial one has only grown because nothing was refused yet: idle members must not use it up.
    const rate = Math.min(this.#rate, this.#limits.initialRate);
    const members = this.#tenants.get(tenant)?.members ?? 0;
    return (members * this.#tenants.size * SECOND_MS) / (rate * IDLE_SHARE);
  }

  /** Counts a call that must not wait. */
  countUrgent(): void {
    this.#refill();
    if (this.#tokens < 1) this.#usedUpAt = this.#clock.monotonic();
    this.#spend();
  }

  /**
   * Waits for this member's turn.
   * @param tenant takes turns with the other tenants as a whole.
   * @returns false if `signal` aborted first; then nothing was spent.
   * @throws BudgetExhausted
   */
  async acquire(member: string, signal?: AbortSignal, tenant = ""): Promise<boolean> {
    if (signal?.aborted) return false;
    this.#noteActivity(member, tenant);
    const since = this.#clock.monotonic();
    try {
      return await this.#wait({ tenant, member }, signal);
    } finally {
      this.#noteActivity(member, tenant);
      this.#metrics?.workBudgetWaitSeconds.inc({ group: this.#group }, (this.#clock.monotonic() - since) / SECOND_MS);
    }
  }

  /** Adjusts the rate to an answer. `sentAtMs` is when its request was sent, on the monotonic clock. */
  onAnswer(
    member: string,
    answer: {
      readonly status: number;
      readonly sentAtMs: number;
      readonly retryAfterMs?: number | undefined;
    },
    tenant = "",
  ): void {
    if (answer.status === 429) {
      this.#noteActivity(member, tenant);
      if (answer.retryAfterMs !== undefined) this.#hold({ tenant, member }, answer.retryAfterMs);
      this.#onRefusal({ tenant, member }, answer.sentAtMs);
    } else if (answer.status < 500 && answer.sentAtMs <= this.#usedUpAt + USED_UP_FOR_MS) {
      // The shares of all answers add up to the increase of one second at full use.
      this.#setRate(this.#rate + this.#limits.increasePerSecond / this.#rate);
    }
  }

  /**
   * Members of one group may belong to several organizations. If more than half of the tenants (with a single tenant:
   * of its members) recently got a 429, the limit is the group's. Otherwise the limit may be their own, and the others
   * keep the initial rate. In both cases, repeated 429s of only one of them count only at intervals.
   */
  #onRefusal({ tenant, member }: Turn, sentAtMs: number): void {
    this.#refill();
    this.#dropInactive();
    const now = this.#clock.monotonic();
    const isOne = this.#tenants.size === 1;
    const peers = isOne ? this.#members : this.#tenants;
    const refused = isOne ? this.#members.get(member) : this.#tenants.get(tenant);
    if (refused) refused.refusedMs = now;
    // Requests in flight at the halving say nothing about the halved rate.
    if (!refused || sentAtMs <= this.#halvedAt) return;
    const recent = [...peers.values()].filter(({ refusedMs }) => now - refusedMs < REFUSED_FOR_MS);
    const isCommon = 2 * recent.length > peers.size;
    const leastRate = isCommon ? this.#limits.minRate : this.#limits.initialRate;
    if (!isCommon && this.#rate <= leastRate) return;
    const isCounted = isCommon
      ? this.#halvedBy === refused && now - this.#halvedAt < COUNTS_EVERY_MS
      : now - refused.halvedMs < REFUSED_FOR_MS;
    if (peers.size > 1 && isCounted) return;
    refused.halvedMs = now;
    this.#halvedAt = now;
    this.#halvedBy = refused;
    this.#setRate(Math.max(leastRate, this.#rate * HALF));
    this.#tokens = Math.min(this.#tokens, 0);
    this.#reserve = 0;
    this.#arm();
  }

  #hold(turn: Turn, ms: number): void {
    const member = this.#members.get(turn.member);
    if (!member) return;
    member.heldUntilMs = Math.max(member.heldUntilMs, this.#clock.monotonic() + ms);
    for (const waiter of this.#turns.takeAll(turn)) waiter.queue();
    this.#arm();
  }

  /** Milliseconds until the member's Retry-After ends. */
  #holdMs(member: string): number {
    const leftMs = (this.#members.get(member)?.heldUntilMs ?? 0) - this.#clock.monotonic();
    return leftMs < ROUNDING_MS ? 0 : leftMs;
  }

  #noteActivity(name: string, tenant: string): void {
    const member = this.#members.get(name) ?? { tenant, askedMs: 0, heldUntilMs: NEVER, ...NEVER_REFUSED };
    member.askedMs = this.#clock.monotonic();
    if (!this.#members.delete(name)) {
      const of = this.#tenants.get(tenant) ?? { members: 0, ...NEVER_REFUSED };
      of.members += 1;
      this.#tenants.set(tenant, of);
    }
    this.#members.set(name, member);
  }

  #dropInactive(): void {
    const inactiveSinceMs = this.#clock.monotonic() - this.#limits.memberMs;
    for (const [member, { tenant, askedMs }] of this.#members) {
      if (askedMs >= inactiveSinceMs) break;
      if (this.#holdMs(member) > 0 || this.#turns.waits({ tenant, member })) continue;
      this.#members.delete(member);
      const of = this.#tenants.get(tenant);
      if (of && of.members > 1) of.members -= 1;
      else this.#tenants.delete(tenant);
    }
  }

  #wait(turn: Turn, signal: AbortSignal | undefined): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    let hold: Timer | undefined;
    const settle = (act: () => void) => {
      this.#waiting -= 1;
      limit.cancel();
      hold?.cancel();
      signal?.removeEventListener("abort", onAbort);
      act();
    };
    const waiter: Waiter = {
      ...turn,
      admit: () => settle(() => resolve(true)),
      queue: () => {
        const holdMs = this.#holdMs(turn.member);
        if (holdMs > 0) {
          hold = this.#clock.setTimer(waiter.queue, holdMs);
        } else if (this.#turns.isEmpty && this.#takeTurn()) {
          waiter.admit();
        } else {
          this.#turns.add(waiter);
          this.#usedUpAt = this.#clock.monotonic();
          this.#arm();
        }
      },
    };
    const giveUp = (act: () => void) => {
      this.#turns.remove(waiter);
      settle(act);
      this.#arm();
    };
    const onAbort = () => giveUp(() => resolve(false));
    const limit = this.#clock.setTimer(
      () => giveUp(() => reject(new BudgetExhausted(Math.max(this.#holdMs(turn.member), this.#delayMs())))),
      this.#limits.maxWaitMs,
    );
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#waiting += 1;
    waiter.queue();
    return promise;
  }

  /** Admits the calls whose turn has come. */
  #admit(): void {
    while (!this.#turns.isEmpty && this.#takeTurn()) {
      this.#turns.next()?.admit();
      this.#usedUpAt = this.#clock.monotonic();
    }
    this.#arm();
  }

  /** Spends one request of a waiting call, if the budget has one now. */
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

  /** Milliseconds until the next turn at the current rate. */
  #delayMs(): number {
    const byTokens = ((1 - this.#tokens) / this.#rate) * SECOND_MS;
    const byReserve = ((1 - this.#reserve) / (this.#rate * WAITERS_SHARE)) * SECOND_MS;
    const delay = Math.max(0, Math.min(byTokens, byReserve));
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
 * The budgets of the process, one per origin and group. Each lives only while something references it: users choose the
 * groups in their Environments, and could use a new name every second.
 */
export class Budgets {
  readonly #options: { clock: Clock; limits?: Partial<BudgetLimits>; metrics?: Metrics };
  readonly #budgets = new Map<string, WeakRef<Budget>>();
  readonly #gone = new FinalizationRegistry<{ key: string; group: string }>((of) => this.#forget(of));

  constructor(options: { clock: Clock; limits?: Partial<BudgetLimits>; metrics?: Metrics }) {
    this.#options = options;
  }

  get(origin: string, group: string): Budget {
    const key = `${origin} ${group}`;
    const known = this.#budgets.get(key)?.deref();
    if (known) return known;
    const budget = new Budget({ ...this.#options, group });
    this.#budgets.set(key, new WeakRef(budget));
    this.#gone.register(budget, { key, group });
    return budget;
  }

  /** The number of budgets. */
  get size(): number {
    return this.#budgets.size;
  }

  #forget({ key, group }: { key: string; group: string }): void {
    // A new budget may have replaced this one before the garbage collection.
    if (this.#budgets.get(key)?.deref() === undefined) this.#budgets.delete(key);
    const isLive = [...this.#budgets.keys()].some((other) => other.endsWith(` ${group}`));
    if (isLive) return;
    this.#options.metrics?.workBudgetRate.remove({ group });
    this.#options.metrics?.workBudgetWaitSeconds.remove({ group });
  }
}
