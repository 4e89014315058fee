import {
  ANNOTATION_NEEDS,
  ANNOTATION_SESSION_ID,
  ANNOTATION_SLEEPS_SINCE,
  ANNOTATION_SLEEPS_UNTIL,
  ANNOTATION_WORK_ID,
} from "../api/names.ts";
import type { Pod } from "../kube/resource.ts";
import { type PodState, stateOf } from "../pods/pod-state.ts";
import { hasRerunTurn } from "../pods/turns.ts";
import { readNeeds } from "../policy/pod-policy.ts";
import type { SessionView } from "../protocol/session-view.ts";

/** Why a sleeping Pod is deleted, as its Event says it. */
export const SLEEP_ENDS = {
  Draining: "the Environment is being deleted",
  Ended: "its Pod ended",
  Rerun: "its node started an earlier work item's container again",
  Superseded: "the session has a newer Pod",
  TooManyTurns: "it has served as many work items as one Pod can",
  Forbidden: "the operator's Pod policy no longer allows its template",
  Expired: "no work item came within workspace.sleepSeconds",
  Unclaimed: "workspace.sleepSeconds have passed twice, and its next work item still waits in the queue",
  OverMaximum: "more sessions slept than maxSleeping allows, and this one had slept longest",
  Yielded: "another Pod of the Environment found no room, and this session had slept longest",
  NotReady: "its Pod did not get ready for the next work item within prepareTimeoutSeconds",
  Removed: "another client deleted it, or evicted it from its node",
  Replaced:
    "its template did not start sessions and has been replaced, so the next work item gets a Pod of the new one",
  Unfit: "its Pod cannot serve the session's next work item: its node is leaving, or the spec has changed since",
} as const;

/** The message of the Event that reports the end of a sleep. */
export function sleepEndMessage(sessionId: string, why: SleepEnd): string {
  return `session ${sessionId} no longer sleeps, and its Pod is deleted: ${SLEEP_ENDS[why]}`;
}

export type SleepEnd = keyof typeof SLEEP_ENDS;

/** A sleeping Pod, as its annotations describe it. Times are in ms since the epoch, by the API server's clock. */
export interface Sleeper {
  readonly pod: Pod;
  readonly state: PodState;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly sessionId: string;
  readonly hasRerunTurn: boolean;
  readonly needs: readonly string[];
}

/** Reads a sleeping Pod. One without a readable time has slept longest, and is kept until its keeper's deadline. */
export function sleeperOf(pod: Pod, state: PodState): Sleeper {
  const { annotations = {} } = pod.metadata;
  const { [ANNOTATION_SLEEPS_SINCE]: since = "", [ANNOTATION_SLEEPS_UNTIL]: until = "" } = annotations;
  const [sinceMs, untilMs] = [Date.parse(since), Date.parse(until)];
  return {
    ...{ pod, state },
    sinceMs: Number.isNaN(sinceMs) ? 0 : sinceMs,
    untilMs: Number.isNaN(untilMs) ? Number.POSITIVE_INFINITY : untilMs,
    sessionId: annotations[ANNOTATION_SESSION_ID] ?? "",
    hasRerunTurn: hasRerunTurn(pod),
    needs: readNeeds(annotations[ANNOTATION_NEEDS]) ?? [],
  };
}

/** A sleeping session as its Pod shows it, with its last work item. */
export function sleepingView(pod: Pod, lease: SessionView["lease"]): SessionView {
  const { name = "", annotations = {} } = pod.metadata;
  const { sinceMs, untilMs } = sleeperOf(pod, stateOf(pod));
  return {
    workId: annotations[ANNOTATION_WORK_ID] ?? "",
    sessionId: annotations[ANNOTATION_SESSION_ID] ?? "",
    ...{ pod: name, lease, phase: "sleeping" },
    ...{ queuedAtMs: null, claimedAtMs: null, openedAtMs: null, startedAtMs: null, beatAtMs: null },
    ...{ stoppedAtMs: sinceMs > 0 ? sinceMs : null, reason: null, message: "", failed: false },
    sleepsUntilMs: Number.isFinite(untilMs) ? untilMs : null,
  };
}

/** Which sessions' items wait in the queue. */
export interface WaitingItems {
  /** Whether an item of this session waits; null: not known yet. */
  waits(sessionId: string): boolean | null;
  /** Whether it could not be found out for long. */
  readonly isBlind: boolean;
}

export interface SleepInput {
  readonly sleepers: readonly Sleeper[];
  readonly nowMs: number;
  readonly draining: boolean;
  /** `spec.sessions.maxSleeping`, or its default. */
  readonly maxSleeping: number;
  /** The spec's sleepSeconds now, in ms: a shorter one ends longer sleeps. */
  readonly sleepMs: number;
  /** The number of Pods of the Environment that wait for room, for which no sleeping Pod went yet. */
  readonly waiting: number;
  /** Asked only for Pods that would be deleted otherwise. */
  readonly items: WaitingItems;
  readonly isForbidden: (sleeper: Sleeper) => boolean;
  /** Since when (ms, same clock) the Pod has not been ready for its next work item; null: it is. */
  readonly notReadyMs: (pod: Pod) => number | null;
  readonly prepareTimeoutMs: number;
}

export interface SleepPlan {
  readonly ends: readonly { readonly sleeper: Sleeper; readonly why: SleepEnd }[];
  /** When to plan again although nothing changed; null: not needed. */
  readonly againAtMs: number | null;
}

/** When to ask again whether an item waits that keeps a Pod. */
const ASK_AGAIN_MS = 60_000;

/**
 * Decides which sleeping Pods are deleted, and why. Pure. Of several, the one that has slept longest goes first. A Pod
 * whose session's item waits is not deleted for others, and sleeps for up to sleepSeconds more.
 */
export function planSleep(input: SleepInput): SleepPlan {
  const ends: { sleeper: Sleeper; why: SleepEnd }[] = [];
  const stay: Sleeper[] = [];
  const sorted = input.sleepers.toSorted((one, other) => one.sinceMs - other.sinceMs);
  const latest = new Map(sorted.map((sleeper) => [sleeper.sessionId, sleeper]));
  for (const sleeper of sorted) {
    const why = endOf(sleeper, input) ?? (latest.get(sleeper.sessionId) === sleeper ? null : "Superseded");
    if (why === null) stay.push(sleeper);
    else ends.push({ sleeper, why });
  }
  const surplus = Math.max(0, stay.length - input.maxSleeping);
  const yields = Math.max(0, Math.min(stay.length - surplus, input.waiting - ends.length - surplus));
  const going = spared(stay, surplus + yields, input.items);
  for (const [rank, sleeper] of going.entries())
    ends.push({ sleeper, why: rank < surplus ? "OverMaximum" : "Yielded" });
  const kept = stay.filter((sleeper) => !going.includes(sleeper));
  const isKeptForItem = going.length < surplus + yields || kept.some((sleeper) => dueMs(sleeper, input) <= input.nowMs);
  const times = kept.flatMap((sleeper) => {
    const notReadyMs = input.notReadyMs(sleeper.pod);
    const sleptMs = [dueMs(sleeper, input), lastMs(sleeper, input)];
    return [...sleptMs, ...(notReadyMs === null ? [] : [notReadyMs + input.prepareTimeoutMs])];
  });
  if (isKeptForItem) times.push(input.nowMs + ASK_AGAIN_MS);
  const next = Math.min(...times.filter((at) => at > input.nowMs));
  return { ends, againAtMs: Number.isFinite(next) ? next : null };
}

/** The Pods that can be spared: those whose session's item may wait come last, and not before it is known. */
function spared(sleepers: readonly Sleeper[], count: number, items: WaitingItems): Sleeper[] {
  if (count === 0) return [];
  const known = Map.groupBy(sleepers, ({ sessionId }) => items.waits(sessionId));
  return [...(known.get(false) ?? []), ...(items.isBlind ? (known.get(null) ?? []) : [])].slice(0, count);
}

function endOf(sleeper: Sleeper, input: SleepInput): SleepEnd | null {
  const { pod, state } = sleeper;
  if (input.draining) return "Draining";
  if (state.is === "ended") return "Ended";
  if (sleeper.hasRerunTurn) return "Rerun";
  if (input.isForbidden(sleeper)) return "Forbidden";
  if (dueMs(sleeper, input) <= input.nowMs) {
    const waits = input.items.waits(sleeper.sessionId);
    if (waits === false) return "Expired";
    if (lastMs(sleeper, input) <= input.nowMs) return waits ? "Unclaimed" : "Expired";
  }
  const notReadyMs = input.notReadyMs(pod);
  return notReadyMs !== null && notReadyMs + input.prepareTimeoutMs <= input.nowMs ? "NotReady" : null;
}

/** When the sleep ends. A later, longer sleepSeconds does not lengthen it. */
function dueMs({ sinceMs, untilMs }: Sleeper, { sleepMs }: SleepInput): number {
  return Math.min(untilMs, sinceMs > 0 ? sinceMs + sleepMs : Number.POSITIVE_INFINITY);
}

/** When the sleep ends although an item of the session waits. */
function lastMs(sleeper: Sleeper, input: SleepInput): number {
  return dueMs(sleeper, input) + input.sleepMs;
}
