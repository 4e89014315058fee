import { SECOND_MS } from "../core/clock.ts";
import type { Breaker } from "../pods/breaker.ts";
import { isPerSession, sessionBoundTo, usesVolume } from "../pods/workspace-pods.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import { type BoundCapacityPlan, planBoundCapacity } from "./bound-capacity.ts";
import type { Expectations } from "./expectations.ts";
import type { FreePods } from "./free-pods.ts";

export interface BoundPodsOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  readonly breaker: Breaker;
  readonly free: FreePods;
  readonly expected: Expectations;
  /** Slots whose Pod takes room and is not free. */
  readonly busy: () => number;
  /** When a Pod was first seen parked (the API server's clock). */
  readonly parkedMs: (name: string) => number | null;
}

/**
 * `workspace: PerSession`: which sessions wait for their own Pod, and which get one. The pool tracks existing Pods and
 * creations in flight.
 */
export class BoundPods {
  readonly #options: BoundPodsOptions;
  readonly #context: PoolContext;
  readonly #awaited: AwaitedSessions;

  constructor(options: BoundPodsOptions) {
    this.#options = options;
    this.#context = options.context;
    this.#awaited = new AwaitedSessions(options.context.kube.now());
  }

  /**
   * Whether it helps to know which sessions wait: a Pod could be created for one, or one may no longer wait for its
   * Pod.
   * @param mayCreate whether Pods can be created now, as far as known
   */
  wantsOffers(mayCreate: boolean): boolean {
    if (!isPerSession(this.#context.environment())) return false;
    // Claims are blocked, so a poll would only keep the item from others.
    if (!this.#options.breaker.admits(this.#context.template().hash, this.#context.clock.monotonic())) return false;
    if (this.#options.free.list().length + this.#options.expected.size > 0) return true;
    return mayCreate && this.#options.busy() < this.#maxConcurrent;
  }

  /** Notes an item in the queue whose session needs its own Pod. */
  offered(sessionId: string): void {
    this.#awaited.offered(sessionId, this.#context.kube.now());
  }

  /** Notes that the session got its Pod, or can't get one now: it waits again from its next offer on. */
  forget(sessionId: string): void {
    this.#awaited.served(sessionId);
  }

  /** The number of sessions that wait for their own Pod. */
  get waiting(): number {
    const { kube, timing } = this.#context;
    return this.#awaited.since(kube.now() - timing.unclaimedParkedMs).length;
  }

  /** Whether a Pod of this session is being created or will be. */
  awaits(sessionId: string): boolean {
    const { kube, timing } = this.#context;
    const sinceMs = kube.now() - timing.unclaimedParkedMs;
    return this.#awaited.has(sessionId, sinceMs) || this.#options.expected.sessions.has(sessionId);
  }

  /** Whether there is no room for a Pod of this session. */
  isFullFor(sessionId: string): boolean {
    if (this.#options.expected.sessions.has(sessionId)) return false;
    const free = this.#options.free.list();
    if (free.some(({ pod }) => sessionBoundTo(pod) === sessionId)) return false;
    return this.#options.busy() + free.length + this.#options.expected.size >= this.#maxConcurrent;
  }

  plan(draining: boolean): BoundCapacityPlan {
    const { environment, template, kube, timing, pods } = this.#context;
    const { prepareTimeoutSeconds = 0 } = environment().spec.sessions ?? {};
    const nowMs = kube.now();
    const taken = new Set(pods.list().map((pod) => (usesVolume(pod) ? sessionBoundTo(pod) : null)));
    return planBoundCapacity({
      ...{ nowMs, hash: template().hash, maxConcurrent: this.#maxConcurrent, draining, busy: this.#options.busy() },
      // While containers fail to start, one Pod is enough for a probe.
      mostFree: this.#options.breaker.isOpen ? 1 : this.#maxConcurrent,
      creating: this.#options.expected.sessions,
      pods: this.#options.free.list().map(({ free, pod }) => ({
        ...free,
        sessionId: sessionBoundTo(pod),
        parkedMs: this.#options.parkedMs(free.name),
      })),
      awaited: this.#awaited.since(nowMs - timing.unclaimedParkedMs),
      lastOfferedMs: (sessionId) => this.#awaited.lastOfferedMs(sessionId),
      isTaken: (sessionId) => taken.has(sessionId) || this.#options.claims.runs(sessionId),
      prepareTimeoutMs: prepareTimeoutSeconds * SECOND_MS,
      unclaimedParkedMs: timing.unclaimedParkedMs,
      unclaimedPreparingMs: timing.unclaimedPreparingMs,
    });
  }

  get #maxConcurrent(): number {
    return this.#context.environment().spec.sessions?.maxConcurrent ?? 0;
  }
}

/**
 * Sessions whose items the queue offers, with `workspace: PerSession`: each Pod is made for one of them. Kept only in
 * memory, since the queue offers an item again until it is acknowledged.
 */
export class AwaitedSessions {
  /** Sessions that wait for a Pod, with the start of the wait (the API server's clock); the longest wait first. */
  readonly #waiting = new Map<string, number>();
  /** When an item of each session was last offered, whether or not it had a Pod. */
  readonly #offeredMs = new Map<string, number>();
  readonly #sinceMs: number;

  /** @param sinceMs when this process began to watch for offers */
  constructor(sinceMs: number) {
    this.#sinceMs = sinceMs;
  }

  /** Notes an item of this session in the queue. */
  offered(sessionId: string, nowMs: number): void {
    this.#offeredMs.set(sessionId, nowMs);
    if (!this.#waiting.has(sessionId)) this.#waiting.set(sessionId, nowMs);
  }

  /** Notes that the session got its Pod, or can't get one now: it waits again from its next offer on. */
  served(sessionId: string): void {
    this.#waiting.delete(sessionId);
  }

  /** Whether the session waits and was offered at or after this time. */
  has(sessionId: string, sinceMs: number): boolean {
    return this.#waiting.has(sessionId) && this.lastOfferedMs(sessionId) >= sinceMs;
  }

  /**
   * When an item of the session was last offered. For a session known only to an earlier process: when this one began
   * to watch.
   */
  lastOfferedMs(sessionId: string): number {
    return this.#offeredMs.get(sessionId) ?? this.#sinceMs;
  }

  /** The sessions that wait and were offered at or after this time, the longest wait first. Forgets all others. */
  since(ms: number): string[] {
    for (const [sessionId, offeredMs] of this.#offeredMs) {
      if (offeredMs >= ms) continue;
      this.#offeredMs.delete(sessionId);
      this.#waiting.delete(sessionId);
    }
    return [...this.#waiting.keys()];
  }
}
