import { ANNOTATION_NEEDS, ANNOTATION_SESSION_ID } from "../api/names.ts";
import { maxSleepingOf } from "../api/sleep-needs.ts";
import type { PodStreams } from "../attach/pod-streams.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { stateOf } from "../pods/pod-state.ts";
import { sleepMsOf, sleepPatch } from "../pods/sleep-mark.ts";
import { endedTurn, hasTurns, isAsleep, isWaitingTurnDead, livesOn, newestTurn } from "../pods/turns.ts";
import { allowsAll, readNeeds } from "../policy/pod-policy.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import type { DepartingPods } from "./departing-pods.ts";
import { planSleep, SLEEP_ENDS, type SleepEnd, sleeperOf } from "./sleep-plan.ts";
import type { TurnAdding } from "./turn-adding.ts";

/** Removals of one Environment in flight at the same time. */
const CONCURRENCY = 8;

/** The least time between two timed passes. */
const MIN_WAKE_MS = 500;

/** Many Pods change within a second, and a pass looks at all sleeping ones. */
const REST_MS = 200;

/** What a session's Pod can do for its next work item. */
export type SessionPod =
  /** Its next turn waits. */
  | { readonly is: "ready"; readonly pod: Pod }
  /** It gets ready, or its last work item is being settled. */
  | { readonly is: "busy" };

export interface SleepingPodsOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  readonly turns: TurnAdding;
  readonly departing: DepartingPods;
  readonly streams: Pick<PodStreams, "hasStarted">;
  /** Pods of this Environment that find no room: names of unschedulable ones, or one for a full quota. */
  readonly waitingForRoom: () => readonly string[];
  readonly onChange: () => void;
}

/**
 * The Pods of an Environment whose sessions sleep. Gives each its next turn, hands it to the session's next work item,
 * and deletes it when its time is over, or when its room is needed (sleep-plan.ts decides).
 */
export class SleepingPods {
  readonly #options: SleepingPodsOptions;
  readonly #context: PoolContext;
  readonly #passes: Passes;
  /** By uid of the Pod: since when it has not been ready for its next work item (the API server's clock). */
  readonly #notReady = new Map<string, number>();
  /** Pods that waited for room, and for which a sleeping Pod went. */
  #yieldedTo: ReadonlySet<string> = new Set();
  #draining = false;

  constructor(options: SleepingPodsOptions) {
    const { clock, timing, logger } = options.context;
    this.#options = options;
    this.#context = options.context;
    this.#passes = new Passes({
      clock,
      pass: () => this.#pass(),
      failed: (error) => logger.warn({ error: errorText(error) }, "sleeping Pods could not be looked after"),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
      restMs: REST_MS,
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
    return this.#context.pods.sleeping().filter((pod) => !pod.metadata.deletionTimestamp).length;
  }

  get isEmpty(): boolean {
    return this.#context.pods.sleeping().length === 0;
  }

  /** Whether a sleeping Pod could serve an item. */
  get hasReady(): boolean {
    return this.#context.pods.sleeping().some((pod) => this.#isFree(pod) && stateOf(pod).is === "parked");
  }

  /** The Pod that keeps this session's files; null: it has none, or that is being deleted. */
  of(sessionId: string): SessionPod | null {
    const { pods } = this.#context;
    const own = pods.ofSession(sessionId).filter((pod) => hasTurns(pod) && !pod.metadata.deletionTimestamp);
    const [pod] = own.filter(({ metadata }) => !this.#options.departing.has(metadata.name ?? ""));
    if (!pod) return null;
    if (!isAsleep(pod) || !this.#isFree(pod)) return { is: "busy" };
    if (this.#context.nodeOutlook(pod) === "leaves") {
      this.giveUp(pod);
      return { is: "busy" };
    }
    return stateOf(pod).is === "parked" ? { is: "ready", pod } : { is: "busy" };
  }

  /** The session's next item can't run in this Pod: deletes it, so that a new one can serve the session. */
  giveUp(pod: Pod): void {
    void this.#end(pod, "Unfit").then(() => this.#options.onChange());
  }

  /**
   * Lets a session sleep again whose claim was dropped before its line was sent, although the Pod was assigned already.
   * Call it for an assigned Pod that has no claim and no Secret of one: a line is sent only once the Secret says so.
   * Returns false if the Pod can't be kept.
   * @throws KubeApiError
   */
  async takeBack(pod: Pod): Promise<boolean> {
    const { kube, points, namespace, environment, logger } = this.#context;
    const { name = "", annotations } = pod.metadata;
    const turn = newestTurn(pod);
    const isKept = turn > 1 && turn > endedTurn(pod) && sleepMsOf(environment()) > 0 && !this.#draining;
    if (!isKept || !livesOn(pod, turn) || stateOf(pod).is !== "running") return false;
    // Someone may have deleted the record of a session that runs.
    if ((await this.#options.streams.hasStarted(pod)) !== "waiting") return false;
    const slept = { sessionId: annotations?.[ANNOTATION_SESSION_ID] ?? "", endedTurn: endedTurn(pod) };
    const patch = sleepPatch(pod, slept, environment(), kube.now());
    const mark = () => kube.patch(PODS, { namespace, name }, patch, { type: "merge" });
    await points.run("session.sleep", { pod: name, asks: { turn: slept.endedTurn } }, mark);
    logger.info({ pod: name }, "a session whose work item was not started sleeps again");
    return true;
  }

  #isFree({ metadata: { name = "", deletionTimestamp } }: Pod): boolean {
    const { claims, departing } = this.#options;
    return !deletionTimestamp && !claims.has(name) && !departing.has(name);
  }

  async #pass(): Promise<void> {
    const { kube, clock, environment, pods } = this.#context;
    const { sessions } = environment().spec;
    if (!sessions) return;
    const free = pods.sleeping().filter((pod) => this.#isFree(pod));
    this.#noteReadiness(free);
    const waiting = this.#options.waitingForRoom();
    const waitingNow = waiting.filter((name) => !this.#yieldedTo.has(name));
    const plan = planSleep({
      sleepers: free.map((pod) => sleeperOf(pod, isWaitingTurnDead(pod) ? GETTING_READY : stateOf(pod))),
      nowMs: kube.now(),
      draining: this.#draining,
      maxSleeping: maxSleepingOf(sessions),
      sleepMs: sleepMsOf(environment()),
      waiting: waitingNow.length,
      isForbidden: (pod) => this.#isForbidden(pod),
      notReadyMs: ({ metadata }) => this.#notReady.get(metadata.uid ?? "") ?? null,
      prepareTimeoutMs: sessions.prepareTimeoutSeconds * SECOND_MS,
    });
    // Each waiting Pod has one sleeping Pod deleted at most: its room may be elsewhere.
    this.#yieldedTo = new Set(plan.ends.length > 0 ? waiting : waiting.filter((name) => this.#yieldedTo.has(name)));
    for (let from = 0; from < plan.ends.length && this.#passes.active; from += CONCURRENCY) {
      const batch = plan.ends.slice(from, from + CONCURRENCY);
      await Promise.all(batch.map(({ sleeper, why }) => this.#end(sleeper.pod, why)));
    }
    const turnAtMs = this.#options.turns.keep(free.filter((pod) => this.#isFree(pod)));
    if (turnAtMs !== null) this.#passes.wakeAfter(turnAtMs - clock.monotonic());
    if (plan.againAtMs !== null) this.#passes.wakeAfter(plan.againAtMs - kube.now());
  }

  #noteReadiness(free: readonly Pod[]): void {
    const uids = new Set(free.map(({ metadata }) => metadata.uid ?? ""));
    for (const uid of this.#notReady.keys()) if (!uids.has(uid)) this.#notReady.delete(uid);
    for (const pod of free) {
      const { uid = "" } = pod.metadata;
      if (stateOf(pod).is === "parked") this.#notReady.delete(uid);
      else if (!this.#notReady.has(uid)) this.#notReady.set(uid, this.#context.kube.now());
    }
  }

  #isForbidden({ metadata }: Pod): boolean {
    return !allowsAll(this.#context.podPolicy, readNeeds(metadata.annotations?.[ANNOTATION_NEEDS]) ?? []);
  }

  async #end(pod: Pod, why: SleepEnd): Promise<void> {
    if (!this.#isFree(pod)) return;
    const { announce, logger, metrics, labels } = this.#context;
    const sessionId = pod.metadata.annotations?.[ANNOTATION_SESSION_ID] ?? "";
    logger.info({ pod: pod.metadata.name, sessionId, why }, "a sleeping Pod is deleted");
    metrics.sleepsEnded.inc({ ...labels, reason: why });
    announce("SleepEnded", `session ${sessionId} sleeps no longer, and its Pod is deleted: ${SLEEP_ENDS[why]}`, pod);
    await this.#options.departing.remove(pod);
  }
}

/** The waiting turn was killed, and the next one is added. */
const GETTING_READY = { is: "preparing", problem: null } as const;
