import { ANNOTATION_SESSION_ID } from "../api/names.ts";
import { maxSleepingOf } from "../api/sleep-needs.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import type { Pod } from "../kube/resource.ts";
import { templateHashOf } from "../pods/own-pods.ts";
import { stateOf } from "../pods/pod-state.ts";
import { sleepMsOf } from "../pods/sleep-mark.ts";
import { hasTurns, isAsleep, isWaitingTurnDead } from "../pods/turns.ts";
import { allowsAll } from "../policy/pod-policy.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import type { SessionView } from "../protocol/session-view.ts";
import type { DepartingPods } from "./departing-pods.ts";
import { hasEnded, type SessionPod } from "./session-pods.ts";
import { planSleep, type SleepEnd, type Sleeper, sleeperOf, sleepingView, type WaitingItems } from "./sleep-plan.ts";
import type { SleepReport } from "./sleep-report.ts";
import type { TurnAdding } from "./turn-adding.ts";
import { type WaitingForRoom, Yielding } from "./yielding.ts";

/** Removals of one Environment in flight at the same time. */
const CONCURRENCY = 8;

/** The least time between two timed passes. */
const MIN_WAKE_MS = 500;

/** Many Pods change within a second. */
const REST_MS = 200;
const REST_OF_A_POD_MS = 0.2;

/** An item whose claim was given up is offered again well within this time. */
const OFFERED_AGAIN_MS = 60_000;

/** When to check again whether another client has released a Pod's slot. */
export const FOREIGN_SLOT_MS = 60_000;

export interface SleepingPodsOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  readonly turns: TurnAdding;
  readonly streams: { keepAsleep(pods: readonly Pod[]): void };
  readonly departing: DepartingPods;
  readonly report: Pick<SleepReport, "ended">;
  readonly waitingForRoom: () => WaitingForRoom;
  /** `waitsAny`: whether an item waits of any session that matches, as far as known. */
  readonly items: WaitingItems & { waitsAny(matches: (sessionId: string) => boolean): boolean };
  readonly onChange: () => void;
}

/**
 * The Pods of an Environment whose sessions sleep. Gives each its next turn, hands it to the session's next work item,
 * and deletes it when its time has ended, or when its room is needed (sleep-plan.ts decides).
 */
export class SleepingPods {
  readonly #options: SleepingPodsOptions;
  readonly #context: PoolContext;
  readonly #passes: Passes;
  /** By uid of the Pod: since when it has not been ready for its next work item (the API server's clock). */
  readonly #notReady = new Map<string, number>();
  /** By uid: Pods that could not be reached for an item, since when, and when last (the API server's clock). */
  readonly #unreached = new Map<string, { readonly sinceMs: number; readonly lastMs: number }>();
  readonly #yielding: Yielding;
  /** By name: Pods whose slot another client holds, and until when (monotonic) they are left alone. */
  readonly #left = new Map<string, number>();
  /** By name: the Pods that slept at the last pass, with uid and session. */
  #slept = new Map<string, { readonly uid: string | undefined; readonly sessionId: string }>();
  #draining = false;

  constructor(options: SleepingPodsOptions) {
    const { clock, timing, logger } = options.context;
    this.#options = options;
    this.#context = options.context;
    this.#yielding = new Yielding((name) => options.context.pods.get(name) !== undefined);
    this.#passes = new Passes({
      clock,
      pass: () => this.#pass(),
      failed: (error) => logger.warn({ error: errorText(error) }, "cannot update sleeping Pods"),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
      // Each pass looks at all of them.
      restMs: () => Math.max(REST_MS, this.#context.pods.sleeping().length * REST_OF_A_POD_MS),
    });
  }

  /** Starts once the table holds all claims of an earlier process. Stops when the signal aborts. */
  start(signal: AbortSignal): void {
    this.#passes.start(signal);
  }

  /** Something changed. Never throws. */
  poke(): void {
    this.#passes.poke();
  }

  /** The Environment is being deleted: deletes every sleeping Pod. */
  drain(): void {
    this.#draining = true;
    this.poke();
  }

  /** Resolves when nothing is in flight, after the signal aborted. */
  async ended(): Promise<void> {
    await this.#passes.ended();
    await this.#options.turns.ended();
  }

  get count(): number {
    const { claims } = this.#options;
    const isAsleep = ({ metadata: { name = "", deletionTimestamp } }: Pod) => !deletionTimestamp && !claims.has(name);
    return this.#context.pods.sleeping().filter(isAsleep).length;
  }

  get isEmpty(): boolean {
    return this.#context.pods.sleeping().length === 0;
  }

  /** Views of the sleeping sessions, each with its last work item. */
  views(): SessionView[] {
    const lease = this.#context.environment().spec.sessions?.lease ?? "Worker";
    return this.#context.pods
      .sleeping()
      .filter((pod) => this.#isFree(pod))
      .map((pod) => sleepingView(pod, lease));
  }

  /** Whether a sleeping session's next item could start now. */
  get hasReady(): boolean {
    return this.#context.pods.sleeping().some((pod) => this.#isReady(pod));
  }

  /** Whether the queue holds an item of a session whose Pod is ready for it, as far as known. */
  get isAwaited(): boolean {
    const { pods } = this.#context;
    const hasReady = (id: string) => pods.ofSession(id).some((pod) => isAsleep(pod) && this.#isReady(pod));
    return this.hasReady && this.#options.items.waitsAny(hasReady);
  }

  /** The Pod that keeps this session's files; null: it has none, or that is being deleted. */
  of(sessionId: string): SessionPod | null {
    const { pods } = this.#context;
    const all = pods.ofSession(sessionId);
    const own = all.filter((pod) => hasTurns(pod) && !this.#isLeaving(pod) && !this.#isLeft(pod) && !hasEnded(pod));
    if (own.some((pod) => !isAsleep(pod))) return { is: "busy" };
    // Of two, which only a lagging cache leads to, the one that ran last has the newest files.
    const [latest] = own.toSorted((one, other) => readSleeper(other).sinceMs - readSleeper(one).sinceMs);
    // Until its deletion was answered, a removal may still find that the Pod must stay (M).
    if (!latest) return all.some((pod) => isAsleep(pod) && this.#isBeingRemoved(pod)) ? { is: "busy" } : null;
    if (!this.#isFree(latest)) return { is: "busy" };
    const outlook = this.#context.nodeOutlook(latest);
    if (outlook === "silent" || outlook === "leaves") {
      // Its files are still there if a silent node comes back.
      if (outlook === "silent") this.noteReach(latest, false);
      else this.giveUp(latest);
      return { is: "busy" };
    }
    return stateOf(latest).is === "parked" ? { is: "ready", pod: latest } : { is: "busy" };
  }

  /** The session's next item won't run in this Pod: deletes it, so that a new one can serve the session. */
  giveUp(pod: Pod, why: "Unfit" | "Replaced" = "Unfit"): void {
    void this.#end(pod, why).then(() => this.#options.onChange());
  }

  /**
   * The session's next item was offered, and its Pod could be reached, or could not. After prepareTimeoutSeconds in which
   * no offer reached it, the Pod is deleted, so that a new one can serve the session.
   */
  noteReach(pod: Pod, isReached: boolean): void {
    const { uid = "" } = pod.metadata;
    const nowMs = this.#context.kube.now();
    this.#forgetOld();
    if (isReached) this.#unreached.delete(uid);
    else this.#unreached.set(uid, { sinceMs: this.#unreached.get(uid)?.sinceMs ?? nowMs, lastMs: nowMs });
  }

  /** What is known of a Pod is outdated if its session got no further item. */
  #forgetOld(): void {
    const oldestMs = this.#context.kube.now() - OFFERED_AGAIN_MS;
    for (const [uid, { lastMs }] of this.#unreached) if (lastMs <= oldestMs) this.#unreached.delete(uid);
  }

  /** Since when the Pod could not be reached; null: not for so long that it must go. */
  #unreachedSince(uid: string, patienceMs: number): number | null {
    const { sinceMs = 0, lastMs = 0 } = this.#unreached.get(uid) ?? {};
    return lastMs - sinceMs >= patienceMs ? sinceMs : null;
  }

  /** Another client holds this Pod's slot: leaves it alone for a while. */
  leave(name: string): void {
    this.#left.set(name, this.#context.clock.monotonic() + FOREIGN_SLOT_MS);
    this.#passes.wakeAfter(FOREIGN_SLOT_MS);
  }

  /** Whether its session's next item could start now. */
  #isReady(pod: Pod): boolean {
    if (!this.#isFree(pod) || stateOf(pod).is !== "parked") return false;
    const { sessionId } = readSleeper(pod);
    return this.#context.holds.wakes(templateHashOf(pod), sessionId) !== "waits";
  }

  #isFree(pod: Pod): boolean {
    return !this.#isLeaving(pod) && !this.#isLeft(pod) && !this.#options.claims.has(pod.metadata.name ?? "");
  }

  /** The Secret of the Pod's next turn is another client's, so no item can wake the session in it. */
  #isLeft({ metadata: { name = "" } }: Pod): boolean {
    return (this.#left.get(name) ?? 0) > this.#context.clock.monotonic() && !this.#options.claims.has(name);
  }

  #isBeingRemoved({ metadata: { name = "", deletionTimestamp } }: Pod): boolean {
    return deletionTimestamp === undefined && this.#options.departing.isRemoving(name);
  }

  #isLeaving({ metadata: { name = "", deletionTimestamp } }: Pod): boolean {
    return deletionTimestamp !== undefined || this.#options.departing.has(name);
  }

  async #pass(): Promise<void> {
    const { kube, clock, environment, pods } = this.#context;
    const { sessions } = environment().spec;
    if (!sessions) return;
    const nowMs = clock.monotonic();
    for (const [name, untilMs] of this.#left) if (untilMs <= nowMs) this.#left.delete(name);
    this.#reportLost();
    const free = pods.sleeping().filter((pod) => this.#isFree(pod));
    this.#noteReadiness(free);
    const prepareTimeoutMs = sessions.prepareTimeoutSeconds * SECOND_MS;
    const { names, lacking } = this.#options.waitingForRoom();
    // Items of Pods that can't be reached wait for these Pods.
    const yielding = this.#yielding.wanted({ names, lacking: lacking - this.#unreached.size }, nowMs);
    const plan = planSleep({
      sleepers: free.map(readSleeper),
      nowMs: kube.now(),
      draining: this.#draining,
      maxSleeping: maxSleepingOf(sessions),
      sleepMs: sleepMsOf(environment()),
      waiting: yielding.count,
      items: this.#options.items,
      isForbidden: ({ needs }) => !allowsAll(this.#context.podPolicy, needs),
      notReadyMs: ({ metadata: { uid = "" } }) =>
        this.#notReady.get(uid) ?? this.#unreachedSince(uid, prepareTimeoutMs),
      prepareTimeoutMs,
    });
    this.#yielding.yielded(Math.min(yielding.count, plan.ends.length));
    for (let from = 0; from < plan.ends.length && this.#passes.active; from += CONCURRENCY) {
      const batch = plan.ends.slice(from, from + CONCURRENCY);
      await Promise.all(batch.map(({ sleeper, why }) => this.#end(sleeper.pod, why)));
    }
    const kept = free.filter((pod) => this.#isFree(pod));
    const ready = kept.filter((pod) => stateOf(pod).is === "parked");
    // A session that slept last is the most likely to return next.
    const inOrder = ready.toSorted((one, other) => readSleeper(other).sinceMs - readSleeper(one).sinceMs);
    this.#options.streams.keepAsleep(inOrder);
    const dueMs = this.#options.turns.keep(kept);
    if (dueMs !== null) this.#passes.wakeAfter(dueMs - clock.monotonic());
    if (yielding.againAtMs !== null) this.#passes.wakeAfter(yielding.againAtMs - clock.monotonic());
    if (plan.againAtMs !== null) this.#passes.wakeAfter(plan.againAtMs - kube.now());
  }

  #noteReadiness(free: readonly Pod[]): void {
    const uids = new Set(free.map(({ metadata }) => metadata.uid ?? ""));
    for (const uid of this.#notReady.keys()) if (!uids.has(uid)) this.#notReady.delete(uid);
    this.#forgetOld();
    for (const pod of free) {
      const { uid = "" } = pod.metadata;
      if (stateOf(pod).is === "parked") this.#notReady.delete(uid);
      else if (!this.#notReady.has(uid)) this.#notReady.set(uid, this.#context.kube.now());
    }
  }

  /** Pods that slept and were deleted by others, such as an eviction. */
  #reportLost(): void {
    const { pods, namespace } = this.#context;
    for (const [name, { uid, sessionId }] of this.#slept) {
      const pod = pods.get(name);
      const isGone = pod?.metadata.uid !== uid || pod?.metadata.deletionTimestamp !== undefined;
      const isOurs = this.#options.departing.has(name) || this.#options.claims.has(name);
      if (!isGone || isOurs) continue;
      this.#options.report.ended(sessionId, { metadata: { name, namespace, ...(uid && { uid }) } }, "Removed");
    }
    const present = pods.sleeping().filter((pod) => !this.#isLeaving(pod));
    this.#slept = new Map(
      present.map(({ metadata: { name = "", uid, annotations } }) => [
        name,
        { uid, sessionId: annotations?.[ANNOTATION_SESSION_ID] ?? "" },
      ]),
    );
  }

  async #end(pod: Pod, why: SleepEnd): Promise<void> {
    if (!this.#isFree(pod)) return;
    const { name = "", annotations } = pod.metadata;
    const sessionId = annotations?.[ANNOTATION_SESSION_ID] ?? "";
    this.#context.logger.info({ pod: name, sessionId, why }, "removing a sleeping Pod");
    // The removal reports it.
    this.#slept.delete(name);
    await this.#options.departing.remove(pod, { sessionId, why });
  }
}

const known = new WeakMap<Pod, Sleeper>();

/** A sleeping Pod of the cache, which never changes an object: each is read once. */
function readSleeper(pod: Pod): Sleeper {
  let sleeper = known.get(pod);
  if (sleeper === undefined) {
    const state = isWaitingTurnDead(pod) ? GETTING_READY : stateOf(pod);
    sleeper = sleeperOf(pod, state);
    known.set(pod, sleeper);
  }
  return sleeper;
}

/** The waiting turn was killed, and the next one is added. */
const GETTING_READY = { is: "preparing", problem: null } as const;
