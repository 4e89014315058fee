import { type Clock, SECOND_MS, type Timer } from "../core/clock.ts";
import { Slots } from "../core/slots.ts";
import type { Metrics } from "../observe/metrics.ts";
import { MAX_RETRY_AFTER_MS } from "./errors.ts";
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
/** What all members together may use of the rate while all are idle: the rest is for those with work. */
const IDLE_SHARE = 1 / 2;
/** A request sent so soon after somebody had to wait was sent at full use of the rate. */
const USED_UP_FOR_MS = 1_000;
/** A 429 counts as recent for as long as the longest Retry-After can hold the member that got it. */
const REFUSED_FOR_MS = MAX_RETRY_AFTER_MS;
/** One tenant halves the rate twice in a row after this: the others find ten requests a second again in between. */
const COUNTS_EVERY_MS = 10_000;
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
  /** Waits until the member is not held, then for a turn. */
  readonly queue: () => void;
}

const NEVER = Number.NEGATIVE_INFINITY;
const NEVER_REFUSED = { refusedMs: NEVER, halvedMs: NEVER };

interface Refusals {
  /** The last 429. */
  refusedMs: number;
  /** The last 429 that halved the rate. */
  halvedMs: number;
}

interface Member extends Refusals {
  readonly tenant: string;
  /** When it asked last. */
  askedMs: number;
  /** Its Retry-After ends then. */
  heldUntilMs: number;
}

interface Tenant extends Refusals {
  members: number;
}

/**
 * The rate at which the members of one group (same origin, same `budgetGroup`) send requests: additive increase, halved
 * on 429. Polls, statistics and slow lists wait for their turn; the calls that keep claims and leases true (ack,
 * heartbeat, stop, list for a decision) are counted and never wait: late, they do harm. A Retry-After holds the member that
 * got it and no other.
 *
 * Members take turns by tenant, then among those of the tenant (turns.ts).
 *
 * Invariants: a timer is armed if and only if a call waits for its turn; `#turns` has no call of a member that is held;
 * `#tokens` lies within [-1 s worth, burst]; `#tenants` counts the members in `#members`.
 */
export class Budget {
  /** Room for beats, which never wait for the rate. */
  readonly beats = new Slots(MOST_BEATS);
  readonly #clock: Clock;
  readonly #limits: BudgetLimits;
  readonly #group: string;
  readonly #metrics: Metrics | undefined;
  readonly #turns = new Turns<Waiter>();
  /** In the order in which they asked last. */
  readonly #members = new Map<string, Member>();
  readonly #tenants = new Map<string, Tenant>();
  #rate: number;
  #tokens: number;
  #reserve = 1;
  #refilledAt: number;
  #halvedAt = NEVER;
  #halvedBy: Refusals | undefined;
  /** When somebody last had to wait: only a rate that is used up is raised. */
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

  /** Requests a second, now. */
  get rate(): number {
    return this.#rate;
  }

  /** Calls that wait for their turn, or are held. */
  get waiting(): number {
    return this.#waiting;
  }

  /**
   * How far apart the calls of an idle member of this tenant should be, in milliseconds: all together, were all idle, then
   * use no more than their share of the rate, and of the one that the platform documents; and each tenant the same part.
   */
  idleIntervalMs(tenant = ""): number {
    this.#forgetGone();
    // A rate that was raised by a rush is one that nobody refused yet: idle members must not keep it used up.
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
   * Waits for this member's turn. `tenant`: what it shares its turns with.
   * @returns false when `signal` cut it short; nothing was spent then.
   * @throws BudgetExhausted
   */
  async acquire(member: string, signal?: AbortSignal, tenant = ""): Promise<boolean> {
    if (signal?.aborted) return false;
    this.#hear(member, tenant);
    const since = this.#clock.monotonic();
    try {
      return await this.#wait({ tenant, member }, signal);
    } finally {
      this.#hear(member, tenant);
      this.#metrics?.workBudgetWaitSeconds.inc({ group: this.#group }, (this.#clock.monotonic() - since) / SECOND_MS);
    }
  }

  /** Learns from an answer to this member. `sentAtMs` is when its request was sent, on the monotonic clock. */
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
      this.#hear(member, tenant);
      if (answer.retryAfterMs !== undefined) this.#hold({ tenant, member }, answer.retryAfterMs);
      this.#onRefusal({ tenant, member }, answer.sentAtMs);
    } else if (answer.status < 500 && answer.sentAtMs <= this.#usedUpAt + USED_UP_FOR_MS) {
      // A share for each answer sums up to the increase for a second at full use.
      this.#setRate(this.#rate + this.#limits.increasePerSecond / this.#rate);
    }
  }

  /**
   * Members of one group may belong to several organizations. When more than half of the tenants were refused lately (of a
   * single tenant: of its members), the limit is the group's. Otherwise it may be their own, and the initial rate stays with the
   * others. In either case one that is refused again and again, while no other is, counts only so often.
   */
  #onRefusal({ tenant, member }: Turn, sentAtMs: number): void {
    this.#refill();
    this.#forgetGone();
    const now = this.#clock.monotonic();
    const isOne = this.#tenants.size === 1;
    const peers = isOne ? this.#members : this.#tenants;
    const refused = isOne ? this.#members.get(member) : this.#tenants.get(tenant);
    if (refused) refused.refusedMs = now;
    // Requests that were under way at the halving tell nothing about the halved rate.
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

  /** Milliseconds until this member is not held any more. */
  #holdMs(member: string): number {
    const leftMs = (this.#members.get(member)?.heldUntilMs ?? 0) - this.#clock.monotonic();
    return leftMs < ROUNDING_MS ? 0 : leftMs;
  }

  #hear(name: string, tenant: string): void {
    const member = this.#members.get(name) ?? { tenant, askedMs: 0, heldUntilMs: NEVER, ...NEVER_REFUSED };
    member.askedMs = this.#clock.monotonic();
    if (!this.#members.delete(name)) {
      const of = this.#tenants.get(tenant) ?? { members: 0, ...NEVER_REFUSED };
      of.members += 1;
      this.#tenants.set(tenant, of);
    }
    this.#members.set(name, member);
  }

  #forgetGone(): void {
    const goneMs = this.#clock.monotonic() - this.#limits.memberMs;
    for (const [member, { tenant, askedMs }] of this.#members) {
      if (askedMs >= goneMs) break;
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

  /** Lets through whoever's turn has come. */
  #admit(): void {
    while (!this.#turns.isEmpty && this.#takeTurn()) {
      this.#turns.next()?.admit();
      this.#usedUpAt = this.#clock.monotonic();
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
