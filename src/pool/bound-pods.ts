import { isPerSession, usesVolume, workspaceOf } from "../pods/workspace-pods.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import type { SessionVolumes } from "../sleep/session-volumes.ts";
import { type BoundCapacityPlan, type BoundPod, planVolumeCapacity } from "./bound-capacity.ts";
import type { CapacityInput, FreePod } from "./capacity.ts";
import type { Expectations } from "./expectations.ts";
import type { FreePods } from "./free-pods.ts";

export interface BoundPodsOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  readonly free: FreePods;
  readonly expected: Expectations;
  readonly volumes: Pick<SessionVolumes, "bindingOf" | "has" | "nameOf">;
  /** Slots whose Pod takes room and is not free. */
  readonly busy: () => number;
  /** When a Pod was first seen parked (the API server's clock). */
  readonly parkedMs: (name: string) => number | null;
}

/**
 * `workspace: PerSession`: which sessions wait for a Pod, and which get their own. The pool tracks existing Pods and
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
    if (!this.#context.holds.starts.admits(this.#context.template().hash, this.#context.clock.monotonic()))
      return false;
    if (this.#options.free.list().length + this.#options.expected.size > 0) return true;
    return mayCreate && this.#options.busy() < this.#maxConcurrent;
  }

  /** Notes an item in the queue whose session needs a Pod. */
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

  /** Whether there is no room for a Pod of this session. A free Pod for any session can be replaced by its Pod. */
  isFullFor(sessionId: string): boolean {
    const { expected, volumes, free, busy } = this.#options;
    const { sessions } = expected;
    const bindings = free.list().map(({ pod }) => volumes.bindingOf(pod));
    const bound = bindings.filter(({ is }) => is === "session").length + sessions.size;
    if (sessions.has(sessionId)) return false;
    if (bindings.some((binding) => binding.is === "session" && binding.sessionId === sessionId)) return false;
    const others = volumes.has(sessionId) ? 0 : bindings.length + expected.size - bound;
    return others === 0 && busy() + bound >= this.#maxConcurrent;
  }

  /** @param shared what the plans of all Environments use, for all free Pods */
  plan(shared: Omit<CapacityInput, "pods" | "creating" | "demand">): BoundCapacityPlan {
    const { kube, timing, pods } = this.#context;
    const { expected, volumes, claims } = this.#options;
    const { nowMs, hash, maxConcurrent, busy, draining, prepareTimeoutMs } = shared;
    const used = new Set(pods.list().map((pod) => (usesVolume(pod) ? workspaceOf(pod) : null)));
    const { bound, unassigned, lost } = this.#sorted();
    const creating = expected.sessions;
    const isUsed = (sessionId: string) => used.has(volumes.nameOf(sessionId) ?? "");
    const awaited = this.#awaited.since(kube.now() - timing.unclaimedParkedMs);
    return planVolumeCapacity(
      {
        ...{ nowMs, hash, maxConcurrent, busy, draining, prepareTimeoutMs, creating, pods: bound },
        // While containers fail to start, one Pod is enough for a probe.
        mostFree: this.#context.holds.starts.isOpen ? 1 : maxConcurrent,
        awaited: awaited.map((sessionId) => ({ sessionId, hasVolume: volumes.has(sessionId) })),
        lastOfferedMs: (sessionId) => this.#awaited.lastOfferedMs(sessionId),
        isTaken: (sessionId) => isUsed(sessionId) || claims.runs(sessionId),
        unclaimedParkedMs: timing.unclaimedParkedMs,
        unclaimedPreparingMs: timing.unclaimedPreparingMs,
      },
      { ...shared, creating: expected.size - creating.size, pods: unassigned, demand: 0 },
      lost,
    );
  }

  /** The free Pods by the sessions that they may serve. */
  #sorted(): { bound: BoundPod[]; unassigned: FreePod[]; lost: string[] } {
    const bound: BoundPod[] = [];
    const unassigned: FreePod[] = [];
    const lost: string[] = [];
    for (const { free, pod } of this.#options.free.list()) {
      const binding = this.#options.volumes.bindingOf(pod);
      const own = (sessionId: string | null) => ({ ...free, sessionId, parkedMs: this.#options.parkedMs(free.name) });
      if (binding.is === "session") bound.push(own(binding.sessionId));
      else if (binding.is === "none") bound.push(own(null));
      else if (binding.is === "lost") lost.push(free.name);
      else unassigned.push(free);
    }
    return { bound, unassigned, lost };
  }

  get #maxConcurrent(): number {
    return this.#context.environment().spec.sessions?.maxConcurrent ?? 0;
  }
}

/**
 * Sessions whose items the queue offers, with `workspace: PerSession`. Kept only in memory, since the queue offers an
 * item again until it is acknowledged.
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
