import { SECOND_MS } from "../core/clock.ts";
import { isPerSession, sessionBoundTo, usesVolume } from "../pods/workspace-pods.ts";
import type { Breaker } from "../protocol/breaker.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import { type BoundCapacityPlan, planBoundCapacity } from "./bound-capacity.ts";
import type { Expectations } from "./expectations.ts";
import type { FreePods } from "./free-pods.ts";

/**
 * `workspace: PerSession`: which sessions wait for a Pod of their own, and which are to get one. What is there and what is
 * under way is the pool's.
 */
export class BoundPods {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #breaker: Breaker;
  readonly #free: FreePods;
  readonly #expected: Expectations;
  readonly #busy: () => number;
  readonly #parkedMs: (name: string) => number | null;
  readonly #awaited: AwaitedSessions;

  constructor(options: {
    context: SessionContext;
    claims: ClaimTable;
    breaker: Breaker;
    free: FreePods;
    expected: Expectations;
    /** Slots whose Pod takes room and is not free. */
    busy: () => number;
    /** When a Pod was first seen parked (the API server's clock). */
    parkedMs: (name: string) => number | null;
  }) {
    this.#context = options.context;
    this.#claims = options.claims;
    this.#breaker = options.breaker;
    this.#free = options.free;
    this.#expected = options.expected;
    this.#busy = options.busy;
    this.#parkedMs = options.parkedMs;
    this.#awaited = new AwaitedSessions(options.context.kube.now());
  }

  /**
   * Whether it helps to know which sessions wait, since a Pod could be made for one, or is being made for one that may not wait
   * any more. `mayCreate`: Pods can be made now, as far as is known.
   */
  wantsOffers(mayCreate: boolean): boolean {
    if (!isPerSession(this.#context.environment())) return false;
    // Whatever is offered could not be claimed: a poll would only keep it from others.
    if (!this.#breaker.admits(this.#context.template().hash, this.#context.clock.monotonic())) return false;
    if (this.#free.list().length + this.#expected.size > 0) return true;
    return mayCreate && this.#busy() < this.#maxConcurrent;
  }

  /** An item of this session is in the queue and needs a Pod of its own. */
  offered(sessionId: string): void {
    this.#awaited.offered(sessionId, this.#context.kube.now());
  }

  /** It got its Pod, or cannot get one for now: its next offer counts anew. */
  forget(sessionId: string): void {
    this.#awaited.served(sessionId);
  }

  /** Whether a Pod of this session is being made, or is to be. */
  awaits(sessionId: string): boolean {
    const { kube, timing } = this.#context;
    const sinceMs = kube.now() - timing.unclaimedParkedMs;
    return this.#awaited.has(sessionId, sinceMs) || this.#expected.sessions.has(sessionId);
  }

  /** Whether there is no room for a Pod of this session. */
  isFullFor(sessionId: string): boolean {
    if (this.#expected.sessions.has(sessionId)) return false;
    const free = this.#free.list();
    if (free.some(({ pod }) => sessionBoundTo(pod) === sessionId)) return false;
    return this.#busy() + free.length + this.#expected.size >= this.#maxConcurrent;
  }

  plan(draining: boolean): BoundCapacityPlan {
    const { environment, template, kube, timing, pods } = this.#context;
    const { prepareTimeoutSeconds = 0 } = environment().spec.sessions ?? {};
    const nowMs = kube.now();
    const taken = new Set(pods.list().map((pod) => (usesVolume(pod) ? sessionBoundTo(pod) : null)));
    return planBoundCapacity({
      ...{ nowMs, hash: template().hash, maxConcurrent: this.#maxConcurrent, draining, busy: this.#busy() },
      // While containers do not start, one Pod is enough for a probe.
      mostFree: this.#breaker.isOpen ? 1 : this.#maxConcurrent,
      creating: this.#expected.sessions,
      pods: this.#free.list().map(({ free, pod }) => ({
        ...free,
        sessionId: sessionBoundTo(pod),
        parkedMs: this.#parkedMs(free.name),
      })),
      awaited: this.#awaited.since(nowMs - timing.unclaimedParkedMs),
      lastOfferedMs: (sessionId) => this.#awaited.lastOfferedMs(sessionId),
      isTaken: (sessionId) => taken.has(sessionId) || this.#claims.runs(sessionId),
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
 * Sessions whose items the queue offers, with `workspace: PerSession`: each Pod is made for one of them. In memory alone: the
 * queue offers an item again until somebody acknowledges it.
 */
export class AwaitedSessions {
  /** Those that wait for a Pod, with when they began to (the API server's clock); the longest first. */
  readonly #waiting = new Map<string, number>();
  /** When an item of each was last offered, whether a Pod was there for it or not. */
  readonly #offeredMs = new Map<string, number>();
  readonly #sinceMs: number;

  /** @param sinceMs when offers were first looked for */
  constructor(sinceMs: number) {
    this.#sinceMs = sinceMs;
  }

  /** An item of this session is in the queue. */
  offered(sessionId: string, nowMs: number): void {
    this.#offeredMs.set(sessionId, nowMs);
    if (!this.#waiting.has(sessionId)) this.#waiting.set(sessionId, nowMs);
  }

  /** It got its Pod, or cannot get one for now: its next offer counts anew. */
  served(sessionId: string): void {
    this.#waiting.delete(sessionId);
  }

  /** Whether it waits, and an item of it was offered after this time. */
  has(sessionId: string, sinceMs: number): boolean {
    return this.#waiting.has(sessionId) && this.lastOfferedMs(sessionId) >= sinceMs;
  }

  /** When an item of it was last offered; of one that an earlier process knew of, since when that could be seen here. */
  lastOfferedMs(sessionId: string): number {
    return this.#offeredMs.get(sessionId) ?? this.#sinceMs;
  }

  /** Those that wait and were offered after this time, the longest awaited first. Forgets all that were not. */
  since(ms: number): string[] {
    for (const [sessionId, offeredMs] of this.#offeredMs) {
      if (offeredMs >= ms) continue;
      this.#offeredMs.delete(sessionId);
      this.#waiting.delete(sessionId);
    }
    return [...this.#waiting.keys()];
  }
}
