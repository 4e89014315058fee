import { findCondition } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { LABEL_ENVIRONMENT, LABEL_PHASE } from "../api/names.ts";
import type { RuntimeReport } from "../api/runtime.ts";
import type { PodStreams } from "../attach/pod-streams.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { ENDED_PHASES } from "../kube/objects.ts";
import type { Pod } from "../kube/resource.ts";
import { listEvents, NodeEvents, waitsSilently } from "../pods/node-events.ts";
import { templateHashOf } from "../pods/own-pods.ts";
import { type End, NEEDS_SHELL, NEEDS_TOOLS, stateOf } from "../pods/pod-state.ts";
import { hasOpenTurn, hasTurns } from "../pods/turns.ts";
import { isPerSession, sessionBoundTo } from "../pods/workspace-pods.ts";
import { type CapacityProblem, capacityProblemOf, unheard } from "../protocol/capacity-problem.ts";
import { ClaimPriority } from "../protocol/claim-priority.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import { isHeldUp } from "../protocol/failing-steps.ts";
import type { DepartingPods } from "../sleep/departing-pods.ts";
import type { SessionVolumes } from "../sleep/session-volumes.ts";
import { FOREIGN_SLOT_MS } from "../sleep/sleeping-pods.ts";
import type { TurnAdding } from "../sleep/turn-adding.ts";
import type { WaitingForRoom } from "../sleep/yielding.ts";
import type { BoundCapacityPlan } from "./bound-capacity.ts";
import { BoundPods } from "./bound-pods.ts";
import {
  type CapacityInput,
  type CapacityPlan,
  planCapacity,
  type RemovalReason,
  SURGE_PATIENCE_MS,
} from "./capacity.ts";
import { Expectations } from "./expectations.ts";
import { type Free, FreePods } from "./free-pods.ts";
import { boundAtMs, parkedMaxAgeMs } from "./parked-age.ts";
import { longestHoldMs, PodCreation } from "./pod-creation.ts";
import { POD_LIMITS_REFUSED } from "./pod-limits.ts";

/** Creations and removals of one Environment in flight at the same time. */
const CONCURRENCY = 16;

/** The same limit during a rush of claims that find Pods. */
const RUSH_CONCURRENCY = 2;

/**
 * About how long a program takes from its session's claim to its first heartbeat. A Pod that is created meanwhile would
 * compete with it for the node.
 */
const PROGRAM_STARTS_MS = 500;

/** What the planning of claims asks of the pool, and tells it. */
export type ParkedPool = Pick<Pool, "hasClaimable" | "wantsOffers" | "setDemand" | "isFull">;

/** The number of Pods in each state. */
export interface PoolCounts {
  readonly warm: number;
  readonly preparing: number;
}

/** End causes that say nothing about the template: these Pods are replaced and never count as failures. */
const LOST = new Set(["Evicted", "Preempted", "NodeLost", "PodDeleted"]);

/** How long a Pod waits for its scheduling gates before it is reported. A controller admits most within a second. */
const GATED_PATIENCE_MS = 10_000;

/** The share of a Pod's prepare timeout after which its Events are read. */
const EVENTS_AT = 0.5;

export interface PoolOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  readonly departing: DepartingPods;
  /** Gives Pods with turns their first one. */
  readonly turns: Pick<TurnAdding, "add" | "keep">;
  readonly streams: Pick<PodStreams, "keep" | "isReachable" | "unreachableMs" | "isDoubtful" | "problemOf">;
  readonly volumes: SessionVolumes;
  readonly onChange: () => void;
}

/**
 * Keeps the Environment's free Pods: creates what `warm` and the queue ask for, replaces old or outdated Pods, and
 * removes surplus ones (capacity.ts decides). Expectations count creations until the cache shows them.
 */
export class Pool {
  readonly #options: PoolOptions;
  readonly #context: PoolContext;
  readonly #claimPriority: ClaimPriority;
  readonly #free: FreePods;
  readonly #expected: Expectations;
  readonly #departing: DepartingPods;
  /** Names of Pods whose slot another client holds: left alone until this time (monotonic). */
  readonly #foreign = new Map<string, number>();
  /**
   * Names of Pods whose session was settled, until the cache shows that they are not free, or until this time
   * (monotonic).
   */
  readonly #settled = new Map<string, number>();
  readonly #creation: PodCreation;
  #surplusSinceMs: number | null = null;
  /** Since when (monotonic) Pods are wanted that were not created yet. */
  #wantedSinceMs: number | null = null;
  #surgeBlockedUntilMs = 0;
  #demand = 0;
  /** The template of which a Pod was ready last. */
  #readyHash: string | null = null;
  #draining = false;
  #mayCreate = false;
  /** Why a Pod has waited for its scheduling gates for long; null: none has. */
  #gated: string | null = null;
  readonly #nodeEvents: NodeEvents;
  readonly #passes: Passes;
  /** When each Pod was first seen parked (the API server's clock), which counts it once. */
  readonly #seenParked = new Map<string, number>();
  /** Names of the Pods that a quota counts: those that have not ended. */
  #live: ReadonlySet<string> = new Set();
  readonly #bound: BoundPods;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#context = options.context;
    this.#departing = options.departing;
    this.#expected = new Expectations(options.context);
    this.#claimPriority = new ClaimPriority({ clock: options.context.clock, claims: options.claims });
    this.#free = new FreePods({ ...options, isTaken: (name) => this.#isTaken(name) });
    this.#bound = new BoundPods({
      ...options,
      free: this.#free,
      expected: this.#expected,
      busy: () => this.busy,
      parkedMs: (name) => this.#seenParked.get(name) ?? null,
    });
    const { clock, random, timing, kube, points, logger } = options.context;
    this.#nodeEvents = new NodeEvents({
      ...{ clock, random, timing },
      list: (pod, signal) =>
        points.run("prepare.read-events", { pod: pod.metadata.name ?? "" }, () => listEvents(kube, pod, signal)),
      onChange: () => {
        this.#options.onChange();
        this.poke();
      },
      onFailure: (error) =>
        logger.debug({ error: errorText(error) }, "cannot read the Events of a Pod that does not get ready"),
    });
    this.#creation = new PodCreation({
      ...options,
      expected: this.#expected,
      onNoVolume: (sessionId) => this.#bound.forget(sessionId),
    });
    this.#passes = new Passes({
      clock,
      pass: () => this.#carryOut(),
      failed: (error) => logger.warn({ error: errorText(error) }, "cannot create or delete waiting Pods"),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
      restMs: () => restMs(options.context.pods.list().length),
    });
  }

  /** Starts planning; until then nothing is created or removed. Stops when the signal aborts. */
  start(signal: AbortSignal): void {
    this.#nodeEvents.start(signal);
    this.#passes.start(signal);
  }

  /** Sets the number of work items in the queue that may be claimed. */
  setDemand(demand: number): void {
    if (demand === this.#demand) return;
    this.#demand = demand;
    this.poke();
  }

  /** Sets whether Pods may be created at all; existing Pods do not change. */
  allowCreation(allowed: boolean): void {
    this.#mayCreate = allowed;
  }

  /** The Environment is being deleted: remove every free Pod. */
  drain(): void {
    this.#draining = true;
    this.poke();
  }

  /** Something changed: plan again soon. Never throws. */
  poke(): void {
    this.#passes.poke();
  }

  /** Resolves when nothing is in flight, after the signal aborted. */
  async ended(): Promise<void> {
    await this.#passes.ended();
    await Promise.all([this.#departing.ended(), this.#nodeEvents.ended()]);
  }

  /**
   * Whether a Pod of the current template has been ready for a session, as its Pods or the status of an earlier process
   * show.
   */
  get wasReady(): boolean {
    const { template, environment, pods } = this.#context;
    const { hash } = template();
    if (this.#readyHash === null && wasAvailable(environment())) this.#readyHash = hash;
    if (this.#readyHash === hash) return true;
    const isReady = this.#free.list().some(({ free }) => free.hash === hash && free.state === "warm");
    if (isReady || pods.list().some((pod) => wasClaimed(pod, hash))) this.#readyHash = hash;
    return this.#readyHash === hash;
  }

  /** See `RuntimeReport`. */
  get firstPod(): RuntimeReport["firstPod"] {
    const { environment, pods } = this.#context;
    const { warm = 0, prepareTimeoutSeconds } = environment().spec.sessions ?? {};
    if (warm === 0 || this.wasReady) return null;
    // Claims of an earlier process may not be known yet, but their Pods are.
    const serves = ({ metadata, status }: Pod) =>
      metadata.labels?.[LABEL_PHASE] === "running" && !ENDED_PHASES.has(status?.phase ?? "");
    const message = `no Pod of the template has been ready yet; Berth reports the cause if none is ready within ${prepareTimeoutSeconds} s (spec.sessions.prepareTimeoutSeconds)`;
    return { reason: "PreparingFirstPod", message, serves: pods.list().some(serves) };
  }

  /** Whether a claim would find a Pod now. */
  get hasClaimable(): boolean {
    return this.#free.hasClaimable;
  }

  /** `workspace: PerSession`: whether it helps to know which sessions wait. */
  get wantsOffers(): boolean {
    const mayCreate = this.#context.holds.creations.waitMs <= 0;
    return this.#mayCreate && !this.#draining && this.#bound.wantsOffers(mayCreate);
  }

  /** Notes an item in the queue whose session needs a Pod. Returns false if there is no room for one. */
  offered(sessionId: string): boolean {
    this.#bound.offered(sessionId);
    this.poke();
    return !this.#bound.isFullFor(sessionId);
  }

  /** Whether a Pod of this session is being created or will be. */
  awaits(sessionId: string): boolean {
    return this.#bound.awaits(sessionId);
  }

  /** Whether the creation of this Pod may be in flight. */
  expects(name: string): boolean {
    return this.#expected.has(name);
  }

  /**
   * The free Pod to claim next: the oldest of the newest template, preferably on a node that stays; null if there is
   * none. Add its claim to the table at once.
   */
  take(sessionId: string, except: ReadonlySet<string>, fits: (pod: Pod) => boolean): Pod | null {
    const best = this.#free.next(except, fits);
    if (!best) return null;
    if (best.free.hash === this.#context.template().hash) this.#readyHash = best.free.hash;
    this.#context.holds.starts.claimed(best.free.hash, best.free.name, { session: sessionId, wakes: false });
    this.#bound.forget(sessionId);
    return best.pod;
  }

  /** Another client holds this Pod's slot: leave it alone for a while, then check whether it is free again. */
  leave(name: string): void {
    this.#foreign.set(name, this.#context.clock.monotonic() + FOREIGN_SLOT_MS);
  }

  /**
   * Notes that a session of this Pod is settled: its container's end is no failed preparation, however late the cache
   * shows its mark.
   */
  settled(name: string): void {
    const { clock, timing } = this.#context;
    this.#settled.set(name, clock.monotonic() + timing.retryMaxMs);
    this.#passes.wakeAfter(timing.retryMaxMs);
  }

  counts(): PoolCounts {
    return this.#countsOf(this.#free.list());
  }

  #countsOf(all: readonly Free[]): PoolCounts {
    const warm = all.filter(({ free: { state } }) => state === "warm").length;
    return { warm, preparing: all.length - warm + this.#expected.size };
  }

  /** The Pods that find no room: those for which no node has room, and one that a quota refuses. Gated Pods may find it. */
  waitingForRoom(): WaitingForRoom {
    const all = this.#free.list();
    const unscheduled = all.filter(({ free, pod }) => {
      const state = stateOf(pod);
      return free.state === "unscheduled" && state.is === "unscheduled" && state.reason !== "";
    });
    const { warm, preparing } = this.#countsOf(all);
    const mayFindRoom = preparing - unscheduled.length;
    const lacking = Math.max(this.#demand - warm, this.#bound.waiting) - mayFindRoom;
    const refused = this.#context.holds.creations.refusedByQuota;
    const names = [...unscheduled.map(({ free }) => free.name), ...(refused === null ? [] : [refused])];
    return { names, lacking: Math.max(0, lacking) };
  }

  /** Whether no unclaimed Pods are left, including ended ones. */
  get isEmpty(): boolean {
    return this.#expected.size === 0 && this.#departing.isEmpty && this.#free.unclaimed().length === 0;
  }

  problem(): CapacityProblem {
    const said = this.#nodeProblem;
    // A complaint about a waiting Pod is newer than one about a removed Pod.
    const problem = this.#context.holds.creations.problem ?? this.#failure();
    if (problem) return problem.is === "preparing" && said ? said : problem;
    const { hash } = this.#context.template();
    for (const { free, pod } of this.#free.list()) {
      if (free.hash !== hash) continue;
      const state = stateOf(pod);
      if (state.is === "unscheduled" && state.reason) {
        return { is: "unschedulable", message: state.message, runtimeClass: pod.spec.runtimeClassName };
      }
      if (state.is === "preparing" && state.problem) return capacityProblemOf(state.problem);
      const refused = this.#attachProblem(pod);
      if (refused) return refused;
    }
    return said ?? (this.#gated === null ? null : { is: "gated", message: this.#gated });
  }

  /** Notes what the Pods that have waited for their scheduling gates wait for, and looks again when another has. */
  #noteGated(free: readonly Free[]): void {
    let message: string | null = null;
    for (const {
      free: { createdAtMs },
      pod,
    } of free) {
      const state = stateOf(pod);
      if (state.is !== "gated") continue;
      const leftMs = createdAtMs + GATED_PATIENCE_MS - this.#context.kube.now();
      if (leftMs > 0) this.#passes.wakeAfter(leftMs);
      else message ??= state.message;
    }
    if (message === this.#gated) return;
    this.#gated = message;
    this.#options.onChange();
  }

  /**
   * The problem of a Pod that failed since the last plan. The next plan notes it: without this, the problem would seem
   * to be solved until then.
   */
  #failure(): CapacityProblem {
    const failed = this.#ended().find(({ end }) => !LOST.has(end.cause));
    return failed ? failureOf(failed.end) : null;
  }

  /** Free Pods that ended before they served. */
  #ended(): { readonly pod: Pod; readonly end: End }[] {
    return this.#free.unclaimed().flatMap((pod) => {
      const state = stateOf(pod);
      return state.is === "ended" ? [{ pod, end: state.end }] : [];
    });
  }

  #attachProblem(pod: Pod): CapacityProblem {
    const message = this.#options.streams.problemOf(pod);
    return message === null ? null : { is: "attach", message };
  }

  /** Why the Pod has no turn that could wait. */
  #turnProblem(pod: Pod): CapacityProblem {
    if (!hasTurns(pod) || hasOpenTurn(pod)) return null;
    const failing = this.#context.holds.failing(["add-turn"]);
    return failing && { is: "preparing", message: failing.message };
  }

  async #carryOut(): Promise<void> {
    await this.#expected.settle();
    this.#catchUp();
    const dueMs = [this.#options.streams.keep(this.#free.waiting()), this.#options.turns.keep(this.#free.unclaimed())];
    for (const atMs of dueMs) if (atMs !== null) this.#passes.wakeAfter(atMs - this.#context.clock.monotonic());
    await this.#departing.retryDue();
    const free = this.#free.list();
    this.#noteGated(free);
    const plan = this.#plan(free);
    this.#surplusSinceMs = plan.surplusSinceMs;
    const askMs = this.#readEvents(free);
    if (askMs !== null) this.#passes.wakeAfter(askMs);
    if (plan.againAtMs !== null) this.#passes.wakeAfter(plan.againAtMs - this.#context.kube.now());
    await this.#clearEnded();
    await this.#inBatches(plan.remove, (removal) => this.#remove(removal.name, removal.reason));
    const { nextMs, unfinished } = this.#departing;
    if (nextMs !== null) this.#passes.wakeAfter(nextMs - this.#context.clock.monotonic());
    // Room that is not free yet must not be used.
    if (unfinished > 0 && plan.remove.length > 0 && plan.create > 0) return this.poke();
    if (!this.#mayCreate) return;
    const { waitMs } = this.#context.holds.creations;
    if (plan.create > 0 && waitMs > 0) return this.#passes.wakeAfter(waitMs);
    if (plan.create === 0) {
      this.#creation.satisfied();
      this.#forgetProblem();
    }
    const sessions = "sessions" in plan ? plan.sessions : [];
    await this.#createAll(sessions, (sessionId) => this.#creation.createFor(sessionId));
    // The others would fail, too.
    if (sessions.length > 0 && this.#context.holds.creations.waitMs > 0) return this.poke();
    const create = plan.create - sessions.length;
    const holdMs = this.#holdMs({ ...plan, create });
    if (holdMs > 0) return this.#passes.wakeAfter(holdMs);
    await this.#createAll(Array.from({ length: create }), () => this.#creation.create());
  }

  /** Only a refusal shows how much room a full quota has now, so creations run one at a time. */
  async #createAll<T>(items: readonly T[], create: (item: T) => Promise<void>): Promise<void> {
    if (!this.#context.holds.creations.isQuotaFull) return this.#inBatches(items, create);
    for (const item of items) {
      await create(item);
      if (this.#context.holds.creations.waitMs > 0 || !this.#passes.active) return;
    }
  }

  /**
   * How long creations yield to claims and to programs that start, in milliseconds; 0 if the next claims wait for new
   * Pods.
   */
  #holdMs({ create, wanted }: CapacityPlan): number {
    const warm = create === 0 ? 0 : this.counts().warm;
    if (create === 0 || warm < this.#demand) {
      this.#claimPriority.nothingWaits();
      this.#wantedSinceMs = null;
      return 0;
    }
    const nowMs = this.#context.clock.monotonic();
    this.#wantedSinceMs ??= nowMs;
    const startsMs = warm === 0 ? 0 : this.#wantedSinceMs + PROGRAM_STARTS_MS - nowMs;
    return Math.max(this.#claimPriority.holdMs(longestHoldMs(warm, wanted)), startsMs);
  }

  #plan(free: readonly Free[]): CapacityPlan | BoundCapacityPlan {
    const { environment, template, kube, timing } = this.#context;
    const sessions = environment().spec.sessions;
    if (!sessions) throw new TypeError("not an Environment with spec.sessions");
    const { hash } = template();
    this.#context.holds.creations.useTemplate(hash);
    const shared = {
      nowMs: kube.now(),
      hash,
      maxConcurrent: sessions.maxConcurrent,
      warm: sessions.warm,
      busy: this.busy,
      trusts: (each: string) => this.#context.holds.starts.trusts(each),
      parkedMaxAgeMs: parkedMaxAgeMs(sessions.parkedMaxAgeSeconds, template().parking.mode),
      prepareTimeoutMs: sessions.prepareTimeoutSeconds * SECOND_MS,
      warmScaleDownMs: timing.warmScaleDownMs,
      surplusSinceMs: this.#surplusSinceMs,
      surgeBlockedUntilMs: this.#surgeBlockedUntilMs,
      draining: this.#draining,
    } satisfies Partial<CapacityInput>;
    if (isPerSession(environment())) return this.#bound.plan(shared);
    const pods = free.map((each) => each.free);
    return planCapacity({ ...shared, demand: this.#demand, creating: this.#expected.size, pods });
  }

  /**
   * Slots whose Pod takes room and is not free: claimed ones until their container ends, and those of other clients.
   */
  get busy(): number {
    let busy = this.#departing.unfinished + this.#free.strays().length;
    for (const name of this.#foreign.keys()) if (!this.#options.claims.has(name)) busy += 1;
    for (const claim of this.#options.claims) {
      // Without its Pod a claim may last long: requests about its item may be refused until a person fixes that.
      if (claim.record.journal.use !== "session" || claim.observed.podGone) continue;
      // Sessions that ended but can't be settled must not pile up.
      if (claim.observed.end === null || isHeldUp(claim)) busy += 1;
    }
    return busy;
  }

  /** Whether maxConcurrent leaves no room for another session. */
  get isFull(): boolean {
    return this.busy >= (this.#context.environment().spec.sessions?.maxConcurrent ?? 0);
  }

  /** Whether another client has the slot, its session was just settled, or the Pod is being deleted. */
  #isTaken(name: string): boolean {
    return this.#foreign.has(name) || this.#departing.has(name) || this.#settled.has(name);
  }

  /** Updates the records from the cache. */
  #catchUp(): void {
    const { pods, clock } = this.#context;
    const nowMs = clock.monotonic();
    this.#departing.catchUp();
    this.#noteFreed();
    for (const names of [this.#foreign, this.#seenParked]) {
      for (const name of names.keys()) if (!pods.get(name)) names.delete(name);
    }
    for (const [name, untilMs] of this.#foreign) if (nowMs >= untilMs) this.#foreign.delete(name);
    for (const [name, untilMs] of this.#settled) {
      const isShown = pods.get(name)?.metadata.labels?.[LABEL_PHASE] !== "warm";
      if (isShown || nowMs >= untilMs) this.#settled.delete(name);
    }
    for (const { free } of this.#free.list()) {
      if (free.state !== "warm" || this.#seenParked.has(free.name)) continue;
      this.#seenParked.set(free.name, this.#context.kube.now());
      const seconds = (this.#context.kube.now() - free.createdAtMs) / SECOND_MS;
      this.#context.metrics.prepareSeconds.observe(this.#context.labels, Math.max(0, seconds));
      this.#context.holds.creations.parked(free.hash);
    }
  }

  #noteFreed(): void {
    // Pods that ended take no room in a quota of Pods or of their requests.
    const live = this.#context.pods.list().filter(({ status }) => !ENDED_PHASES.has(status?.phase ?? ""));
    const before = this.#live;
    this.#live = new Set(live.map(({ metadata }) => metadata.name ?? ""));
    if ([...before].some((name) => !this.#live.has(name))) this.#context.holds.creations.freed();
  }

  /** Nothing is wanted any more, so no creation would show that the problem was fixed. */
  #forgetProblem(): void {
    if (!this.#context.holds.creations.problem) return;
    const waitMs = this.#context.holds.creations.forget(this.counts().preparing);
    if (waitMs === null) return;
    if (waitMs > 0) this.#passes.wakeAfter(waitMs);
    else this.#options.onChange();
  }

  /**
   * Removes free Pods that ended before they served: failed preparations, and Pods lost with their node or evicted. It
   * also removes strays, since no record says what they run.
   */
  async #clearEnded(): Promise<void> {
    const ended = this.#ended();
    const strays = this.#free.strays();
    await this.#inBatches(strays, (pod) => this.#remove(pod.metadata.name ?? "", "Stray"));
    await this.#inBatches(ended, async ({ pod, end }) => {
      if (!LOST.has(end.cause)) this.#failedToPrepare(end.cause, failureOf(end));
      if (pod.status?.reason === POD_LIMITS_REFUSED) this.#creation.withoutPodLimits(this.#context.template().hash);
      if (end.message.endsWith(NEEDS_SHELL)) this.#context.shellFailed("the image has no /bin/sh");
      if (end.message.endsWith(NEEDS_TOOLS)) this.#context.sleepFailed("the image has no /bin/sh, date or sleep");
      await this.#remove(pod.metadata.name ?? "", LOST.has(end.cause) ? "Lost" : "Failed");
    });
  }

  #failedToPrepare(reason: string, problem: CapacityProblem): void {
    this.#context.metrics.prepareFailures.inc({ ...this.#context.labels, reason });
    this.#context.holds.creations.say(problem);
    this.#context.holds.creations.pause();
  }

  /** @returns when to call again, in milliseconds; null: when something changes */
  #readEvents(free: readonly Free[]): number | null {
    const { template, kube, environment, timing } = this.#context;
    const { hash } = template();
    const nowMs = kube.now();
    const timeoutMs = (environment().spec.sessions?.prepareTimeoutSeconds ?? 0) * SECOND_MS;
    const afterMs = Math.min(timing.askNodeAfterMs, timeoutMs * EVENTS_AT);
    const waiting = free
      .filter((each) => each.free.hash === hash && waitsSilently(each.pod))
      .map((each) => ({ pod: each.pod, inMs: boundAtMs(each.free, nowMs, timeoutMs) + afterMs - nowMs }));
    const ready = free.filter((each) => each.free.state === "warm").map(({ pod }) => pod);
    return this.#nodeEvents.look({ hash, waiting, ready });
  }

  get #nodeProblem(): CapacityProblem {
    const message = this.#nodeEvents.problem;
    return message === null ? null : { is: "preparing", message };
  }

  /** Why a Pod missed its deadline. */
  #whyLate({ metadata }: Pod): CapacityProblem {
    const { namespace, name } = this.#context;
    const { events } = this.#nodeEvents;
    const label = metadata.labels?.[LABEL_ENVIRONMENT] ?? name;
    const command = `kubectl -n ${namespace} describe pods -l ${LABEL_ENVIRONMENT}=${label}`;
    return this.#nodeProblem ?? unheard(events === "forbidden" ? { command } : events);
  }

  async #remove(name: string, reason: RemovalReason | "Lost" | "Failed" | "Stray"): Promise<void> {
    const pod = this.#context.pods.get(name);
    if (!pod || this.#departing.has(name) || this.#options.claims.has(name)) return;
    const problem = stateOf(pod);
    if (reason === "SurgeGivenUp")
      this.#surgeBlockedUntilMs = this.#context.kube.now() + SURGE_PATIENCE_MS * SURGE_PAUSES;
    const sessionId = sessionBoundTo(pod);
    // Let other sessions go first: the cause may be this session's own volume.
    if (sessionId !== null && (reason === "PrepareTimeout" || reason === "Failed")) this.#bound.forget(sessionId);
    if (reason === "PrepareTimeout") {
      // Use the message that was shown during the preparation.
      const said = problem.is === "preparing" && problem.problem && capacityProblemOf(problem.problem);
      const own = this.#turnProblem(pod) ?? this.#attachProblem(pod);
      this.#failedToPrepare(reason, said || (own ?? this.#whyLate(pod)));
    }
    this.#context.logger.info({ pod: name, reason }, "removing a waiting Pod");
    await this.#departing.remove(pod);
  }

  /** Runs a limited number at a time, and starts no more once the signal aborted. */
  async #inBatches<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
    for (let from = 0; from < items.length && this.#passes.active; ) {
      const isRush = this.#claimPriority.isRush && this.counts().warm >= this.#demand;
      const size = isRush ? RUSH_CONCURRENCY : CONCURRENCY;
      await Promise.all(items.slice(from, from + size).map(act));
      from += size;
    }
  }
}

/** Whether the status says that a Pod of this same spec has been ready. */
function wasAvailable({ metadata, status }: Environment): boolean {
  const capacity = findCondition(status?.conditions, "CapacityAvailable");
  return capacity?.reason === "Available" && capacity.observedGeneration === metadata.generation;
}

/** Only Pods that are ready are claimed. */
function wasClaimed(pod: Pod, hash: string): boolean {
  const phase = pod.metadata.labels?.[LABEL_PHASE];
  return templateHashOf(pod) === hash && phase !== undefined && phase !== "warm";
}

function failureOf({ message }: End): CapacityProblem {
  return { is: "preparing", message };
}

/**
 * In a rush, hundreds of Pods change within a second, and each plan looks at all of them. Up to 250 Pods, ten plans a
 * second are enough; with more Pods plans are rarer, so that their total cost stays the same.
 */
function restMs(pods: number): number {
  return Math.min(LONGEST_REST_MS, Math.max(SHORTEST_REST_MS, pods * REST_OF_A_POD_MS));
}

const SHORTEST_REST_MS = 100;
const LONGEST_REST_MS = 500;
const REST_OF_A_POD_MS = 0.4;

/** The least time between two timed plans. */
const MIN_WAKE_MS = 100;

/** The pause after an abandoned surge, in multiples of its patience. */
const SURGE_PAUSES = 5;
