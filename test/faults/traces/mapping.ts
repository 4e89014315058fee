import { Moment } from "../../../model/moment.ts";
import {
  BODY,
  DELIVERY,
  ITEM,
  isAlive,
  KNOWN,
  type Layout,
  MARK,
  MEMORY,
  normalize,
  OBJECT,
  PHASE,
  POD,
  SHELL,
  SLEEP,
  STATE,
  type State,
  TURN,
  VOLUME,
} from "../../../model/state.ts";
import type { OperatorStep, ShellPoint, SleepStep, Step, VolumeStep } from "../../../model/steps.ts";
import { Volume } from "../../../model/volume.ts";
import { assign } from "../../../model/volumes.ts";
import type { PointDetails, PointOutcome } from "../../../src/core/points.ts";
import type { SessionPoint } from "../../../src/protocol/points.ts";
import type { Successor } from "./candidates.ts";

/** The operator, turn, item and volume of a point, by the model's numbers. -1: it is about none of the session's. */
export interface Actor {
  readonly layout: Layout;
  readonly operator: number;
  /** The turn of a Pod; without turns, the Pod. */
  readonly pod: number;
  readonly item: number;
  readonly volume: number;
  /** The session that a volume is written for; 0: none. */
  readonly session: number;
}

/** The session of the trace, and any other. */
export const [OUR_SESSION, OTHER_SESSION] = [1, 2];

/** What a point requested, and how it was answered. */
export interface Said {
  readonly asks: PointDetails;
  readonly details: PointDetails;
}

/** How a point of the code maps to steps of the model. */
export interface Reading {
  /** The steps that it may represent. */
  readonly steps: readonly (OperatorStep | SleepStep | VolumeStep)[];
  /** Selects among these steps by what the point requested. */
  fits?(step: Step, asks: PointDetails): boolean;
  /** Whether the request may succeed and change nothing in the model. */
  isNothing?(state: State, actor: Actor, said: Said): boolean;
  /** A change beyond the steps of the model. */
  also?(state: State, actor: Actor, successors: readonly Successor[]): State | null;
  /** For a read, the word for the current value. The answer must have been true at some time during the read. */
  reads?(state: State, actor: Actor): string;
  /** The same word, taken from the answer; null if the answer does not tell. */
  saw?(details: PointDetails): string | null;
  /** Whether the answer agrees with the state after the step that it represents. */
  shows?(state: State, actor: Actor, details: PointDetails): boolean;
  /** Whether the answer may be one that shows nothing. */
  isUnclear?(details: PointDetails): boolean;
  /** Whether it changes only what its operator knows: without an answer, nothing. */
  learns?: boolean;
  /** Whether a refusal may be a step: the object has changed since its operator read it. */
  isVersioned?: boolean;
  /** Whether it does no more if it takes effect after its operator stopped waiting. */
  isLateHarmless?: boolean;
  /** Outcomes that the model has steps for, whether or not the request took effect. */
  counts?: readonly PointOutcome[];
}

const stateOf = (state: State, { layout, item }: Actor) => state[layout.item(Math.max(0, item)) + ITEM.state] ?? 0;
const podOf = (state: State, { layout, pod }: Actor, byte: number) => state[layout.pod(pod) + byte] ?? 0;
const shellOf = (state: State, { layout, pod }: Actor, byte: number) => state[layout.shell(pod) + byte] ?? 0;
const memoryIs = (state: State, actor: Actor, ...memories: number[]) =>
  memories.includes(podOf(state, actor, POD.memory));

const sleepOf = (state: State, { layout, pod }: Actor, byte: number) => state[layout.sleep(pod) + byte] ?? 0;
const isStopped = (state: State, actor: Actor) => stateOf(state, actor) === STATE.stopped;

function isAssigned(state: State, actor: Actor): boolean {
  if (actor.layout.hasTurns) return sleepOf(state, actor, SLEEP.phase) === PHASE.assigned;
  return shellOf(state, actor, SHELL.assigned) === 1;
}

/** Whether the Pod of the turn was never given to a session, or given back unopened. */
function isFree(state: State, actor: Actor): boolean {
  const isParked = actor.layout.hasTurns
    ? sleepOf(state, actor, SLEEP.phase) === PHASE.parked
    : !shellOf(state, actor, SHELL.assigned);
  return isParked && podOf(state, actor, POD.body) === BODY.parked && !podOf(state, actor, POD.record);
}

/** Whether the Pod's object exists, and nothing deletes it. */
const exists = (state: State, actor: Actor) => podOf(state, actor, POD.object) === OBJECT.exists;

/** Whether no program of the Pod runs, and no session sleeps in it. */
function isIdle(state: State, actor: Actor): boolean {
  const { layout, pod } = actor;
  const bodies = layout.turnsOf(pod).map((turn) => state[layout.pod(turn) + POD.body] ?? 0);
  if (!layout.hasTurns) return !bodies.some((body) => isAlive(body) || body === BODY.parked);
  const isKept = sleepOf(state, actor, SLEEP.phase) === PHASE.sleeping || isFree(state, actor);
  return !bodies.some(isAlive) && !(isKept && exists(state, actor));
}

/** The item's Pod has ended or is ending. */
function isPodGone(state: State, actor: Actor): boolean {
  const body = podOf(state, actor, POD.body);
  const isEnding = body === BODY.gone || body === BODY.ended || body === BODY.finishing;
  return isEnding || !exists(state, actor);
}

/** This process knows that the program started; or the item's state shows that it ran. */
function isStarted(state: State, actor: Actor): boolean {
  const is = stateOf(state, actor);
  return shellOf(state, actor, SHELL.delivery) === DELIVERY.started || is === STATE.stopping || is === STATE.stopped;
}

const READS_STATE: Pick<Reading, "steps" | "reads" | "saw"> = {
  steps: [],
  reads: (state, actor) => nameOfState(stateOf(state, actor)),
  saw: ({ state }) =>
    typeof state !== "string" || state === "unknown" ? null : state === "absent" ? "stopped" : state,
};

function nameOfState(value: number): string {
  return Object.entries(STATE).find(([, one]) => one === value)?.[0] ?? "";
}

/** A heartbeat that gives no lease, or one for a stopping item, where the server compares no value. */
const isNoLease = (_state: State, _actor: Actor, { details }: Said) =>
  details["accepted"] !== true || details["state"] !== "active";

/** Whether the Pod's object names a volume, which stays until then. */
const isNamed = (state: State, actor: Actor) => actor.layout.hasVolumes && exists(state, actor);

/** The deletion of a finished or free Pod. */
const DELETES_IDLE: Reading = {
  steps: ["retention.delete-pod"],
  isNothing: (state, actor) => isIdle(state, actor) && !isNamed(state, actor),
  also: (state, actor) => {
    if (!isFree(state, actor) && !(isIdle(state, actor) && isNamed(state, actor))) return null;
    const next = state.slice();
    for (const turn of actor.layout.turnsOf(actor.pod)) {
      next[actor.layout.pod(turn) + POD.body] = BODY.gone;
      next[actor.layout.pod(turn) + POD.object] = 0;
    }
    normalize(actor.layout, next);
    return next;
  },
};

/** The deletion of a free or sleeping Pod under its lock. In the model, that of a sleeping one takes effect later. */
const REMOVES: Reading = {
  ...DELETES_IDLE,
  steps: ["removal.delete-pod", "retention.delete-pod"],
  shows: (state, actor) => !exists(state, actor),
};

/** Changes one byte of the state, if `isDue`. */
function changed(state: State, isDue: boolean, at: number, byte: number): State | null {
  if (!isDue) return null;
  const next = state.slice();
  next[at] = byte;
  return next;
}

/**
 * The settlement of a Pod's first claim whose program never served: the Pod is not kept. The model marks each as
 * sleeping.
 */
function withoutMark(state: State, actor: Actor, successors: readonly Successor[]): State | null {
  const { layout, pod } = actor;
  const isDue = successors.some(({ step }) => step.name === "session.sleep" && step.pod === pod);
  if (!isDue || !layout.hasTurns || layout.turnOf(pod) > 1) return null;
  const next = state.slice();
  next.fill(0, layout.pod(pod) + POD.record, layout.pod(pod) + POD.lateKey);
  next[layout.shell(pod) + SHELL.delivery] = DELIVERY.unknown;
  return next;
}

/** One patch adds the next turn and, by its number, skips one that ended while it waited. */
function afterSkippedTurn(_: State, { layout, pod }: Actor, successors: readonly Successor[]): State | null {
  const skipped = successors.find(({ step }) => step.name === "turn.skip" && step.pod === pod - 1);
  if (!skipped) return null;
  return changed(skipped.next, layout.turnOf(pod) > 1, layout.pod(pod) + POD.body, BODY.parked);
}

const volumeOf = (state: State, { layout, volume }: Actor, byte: number) => state[layout.volume(volume) + byte] ?? 0;

/** Whether the volume is gone, or being deleted, or has a session. */
function isUnfree(state: State, actor: Actor): boolean {
  return volumeOf(state, actor, VOLUME.object) !== OBJECT.exists || volumeOf(state, actor, VOLUME.session) !== 0;
}

/** A list shows which volumes have a session, or are gone. The model reads one at a time. */
function listed(state: State, { layout, operator }: Actor, successors: readonly Successor[]): State {
  const next = state.slice();
  for (const { step, next: read } of successors) {
    if (step.name !== "workspace.read" || step.operator !== operator || step.volume === undefined) continue;
    const at = layout.volume(step.volume);
    next.set(read.subarray(at, layout.volume(step.volume + 1)), at);
  }
  return next;
}

/** What the claim of another session does to a volume. */
function assignedToOther(state: State, { layout, operator, volume }: Actor): Successor[] {
  const found: Successor[] = [];
  const moment = new Moment(layout, (next, step) => found.push({ next: next.slice(), step }));
  moment.state = state;
  const one = new Volume(moment, volume);
  // The operator has read that it has no session.
  if (one.operator === operator && one.isThoughtUnassigned) assign(one, OTHER_SESSION);
  return found;
}

/**
 * Points that change nothing in the model: their effect is not part of it, or they are reads that decide nothing alone.
 */
type Unread =
  | `${"environment" | "refuse" | "budget" | "queue" | "sweep" | "cleanup"}.${string}`
  | `prepare.read-${string}`
  | `recover.${string}`
  | `removal.${"read-lock" | "read-pod"}`
  | `retention.${"read-secret" | "read-pod"}`
  | "turn.read-pod"
  | `claim.${"offer" | "read-journal"}`
  | `session.${"shorten" | "read-credential" | "read-pod" | "count-release" | "mark" | "reread" | "forget"}`;

/** Points with a meaning in the model. A new point must be added here or to `Unread`. */
const READ = {
  "claim.poll": { steps: [], reads: READS_STATE.reads, saw: () => "queued" } as Reading,
  "claim.journal": { steps: ["claim.journal"] },
  "claim.read-pod": {
    steps: [],
    reads: (state, actor) =>
      String(podOf(state, actor, POD.body) === BODY.parked && exists(state, actor) && !isAssigned(state, actor)),
    // A Pod that is not parked may also be one that is briefly not ready.
    saw: ({ parked }) => (parked === true ? "true" : null),
  },
  "claim.ack": { steps: ["claim.ack"], counts: ["unanswered"] },
  "claim.drop": { steps: ["claim.drop"] },
  "session.look": READS_STATE,
  "session.own": { steps: ["session.own"] },
  "session.doubt": { steps: ["session.doubt"] },
  "session.take": { steps: ["session.take"], isNothing: isNoLease },
  "session.beat": { steps: ["session.beat"], isNothing: isNoLease },
  "session.fence": { steps: ["session.fence"], isNothing: isNoLease },
  "session.lose": {
    steps: ["session.lose"],
    isNothing: (state, actor) => memoryIs(state, actor, MEMORY.lost, MEMORY.silent),
  },
  "session.let-go": { steps: ["session.let-go"] },
  "session.open": { steps: ["session.open"], isNothing: (state, actor) => podOf(state, actor, POD.key) === 1 },
  "session.touch": {
    steps: ["session.touch"],
    // With `parking: Key` it only makes the kubelet look.
    isNothing: (state, actor) => !actor.layout.isShell || isAssigned(state, actor),
  },
  "session.deliver": { steps: ["session.deliver"], counts: ["unanswered"] },
  "session.read-log": {
    steps: ["session.read-log"],
    counts: ["refused", "failed", "unanswered"],
    shows: (state, actor, { started }) => started === (shellOf(state, actor, SHELL.delivery) === DELIVERY.started),
    // A log without its beginning shows no start.
    isUnclear: ({ started }) => started === false,
    isNothing: (state, actor, { details }) =>
      isPodGone(state, actor) || (details["started"] === true && isStarted(state, actor)),
  },
  "session.delivered": {
    steps: ["session.delivered"],
    isNothing: (state, actor, { details: { by } }) =>
      isStarted(state, actor) || (by === "silence" && actor.layout.rules.lease === "Operator"),
  },
  "session.snapshot": {
    steps: ["session.snapshot"],
    // Recorded again after a heartbeat without an answer, or by a read older than the end of its lease. Both are harmless.
    isNothing: (state, actor) => memoryIs(state, actor, MEMORY.snapshot) || stateOf(state, actor) !== STATE.active,
  },
  "session.stop": {
    steps: ["session.stop"],
    fits: ({ graceful = false }, { force }) => graceful === (force !== true),
    isNothing: (state, actor, { asks }) =>
      isStopped(state, actor) || (asks["force"] !== true && stateOf(state, actor) === STATE.stopping),
  },
  "session.delete-pod": { steps: ["session.delete-pod"], isNothing: isPodGone },
  "session.drop": { steps: ["session.drop"] },
  "session.settled": { steps: ["session.settled"], also: withoutMark },
  "session.sleep": { steps: ["session.sleep"] },
  "turn.add": {
    steps: ["turn.add"],
    also: afterSkippedTurn,
    isNothing: (state, actor) => exists(state, actor) && podOf(state, actor, POD.body) !== BODY.absent,
  },
  "removal.lock": {
    steps: ["removal.lock"],
    also: (state, actor) => changed(state, isFree(state, actor), actor.layout.turn(actor.pod) + TURN.lock, 1),
    isNothing: (_, { layout }) => !layout.hasTurns,
  },
  "removal.delete-pod": REMOVES,
  "removal.unlock": {
    steps: ["removal.unlock"],
    isNothing: (state, { layout, pod }) => !layout.hasTurns || !state[layout.turn(pod) + TURN.lock],
  },
  "retention.delete-pod": DELETES_IDLE,
  "prepare.create-pod": { steps: ["prepare.create-pod"], isNothing: (_, { layout }) => !layout.hasVolumes },
  "workspace.create": { steps: ["workspace.create"] },
  "workspace.list": { steps: [], also: listed, learns: true },
  "workspace.read": {
    steps: ["workspace.read"],
    learns: true,
    isNothing: (state, actor) => !isUnfree(state, actor) || volumeOf(state, actor, VOLUME.known) === KNOWN.settled,
  },
  "workspace.adopt": {
    steps: ["workspace.adopt"],
    // It only keeps earlier requests from taking effect, which can get lost, too.
    isLateHarmless: true,
    isNothing: (state, actor) => {
      const known = volumeOf(state, actor, VOLUME.known);
      return known === KNOWN.settled || known === KNOWN.unassigned;
    },
  },
  "workspace.assign": { steps: ["workspace.assign"], counts: ["unanswered"], isVersioned: true },
  "workspace.take": {
    steps: ["workspace.take"],
    isNothing: (state, actor) => volumeOf(state, actor, VOLUME.mark) === MARK.inUse,
  },
  "workspace.leave": { steps: ["workspace.leave"], counts: ["unanswered"] },
  "workspace.delete": { steps: ["workspace.delete"], counts: ["unanswered"], isVersioned: true },
} as const satisfies Readonly<Record<Exclude<SessionPoint | ShellPoint, Unread>, Reading>>;

/** The same, by any name. */
export const READINGS: Readonly<Record<string, Reading | undefined>> = READ;

/** The states to which the steps of a point can lead, each with its outcome. */
export function effectsOf(
  reading: Reading,
  actor: Actor,
  asks: PointDetails,
  state: State,
  successors: readonly Successor[],
): (readonly [next: State, how: string])[] {
  if (reading.reads) return [[state, reading.reads(state, actor)]];
  const isOthers = reading.steps.includes("workspace.assign") && actor.session === OTHER_SESSION;
  const all = isOthers ? assignedToOther(state, actor) : successors;
  const own = all.filter(({ step }) => isOwn(reading, actor, asks, step));
  const also = reading.also?.(state, actor, successors) ?? null;
  return [...own.map(({ next, step }) => [next, step.outcome] as const), ...(also ? [[also, "ok"] as const] : [])];
}

/** A crash has its own entry in a trace. */
function isOwn({ steps, fits }: Reading, actor: Actor, asks: PointDetails, step: Step): boolean {
  const { operator, pod, item, volume } = actor;
  if (step.operator !== operator || step.pod !== pod || step.outcome.startsWith("crash")) return false;
  if (step.volume !== undefined && step.volume !== volume) return false;
  if (item >= 0 && step.item >= 0 && step.item !== item) return false;
  return (steps as readonly string[]).includes(step.name) && (fits?.(step, asks) ?? true);
}

/** Whether the answer to a request agrees with how the request took effect; `how` is null if it did not. */
export function agrees(
  reading: Reading,
  actor: Actor,
  said: Said & { readonly outcome: PointOutcome },
  state: State,
  how: string | null,
): boolean {
  const { outcome } = said;
  if (reading.reads) {
    const saw = outcome === "ok" ? (reading.saw?.(said.details) ?? null) : null;
    return saw === null || saw === how;
  }
  // A read finds out that the object is gone.
  const isAnswered = outcome === "ok" || (outcome === "refused" && said.details["status"] === NOT_FOUND);
  if (reading.learns && !isAnswered) return how === null;
  if (reading.counts?.includes(outcome)) return how === "unanswered" || how === "lost";
  switch (outcome) {
    case "ok":
      if (how === "ok" && reading.shows) return reading.shows(state, actor, said.details);
      if (how === "lost") return reading.isUnclear?.(said.details) ?? false;
      return how === "ok" || how === "refused" || (how === null && (reading.isNothing?.(state, actor, said) ?? false));
    case "refused":
      // A heartbeat refused after one without an answer shows our own value, which the operator adopts.
      if (how === "ok") return reading.learns === true || reading.steps.includes("session.beat");
      return how === null || (how === "refused" && reading.isVersioned === true);
    case "failed":
      return how === null;
    case "unanswered":
      // The operator may find by reading that a journal was written.
      return how !== "ok" || !hasUnanswered(reading) || reading.steps.includes("claim.journal");
    default:
      return outcome satisfies never;
  }
}

const NOT_FOUND = 404;

/** Whether a request without an answer must be followed: it may change something later. */
export function mayBeLate({ reads, learns = false, isLateHarmless = false }: Reading): boolean {
  return !reads && !learns && !isLateHarmless;
}

/** Steps for which the model distinguishes whether they were answered. */
const ANSWERED: ReadonlySet<OperatorStep | SleepStep | VolumeStep> = new Set([
  "workspace.adopt",
  "claim.journal",
  "session.take",
  "session.fence",
  "session.beat",
]);

function hasUnanswered({ steps }: Reading): boolean {
  return steps.some((name) => ANSWERED.has(name));
}

/**
 * How a request without an answer may take effect later. The model has separate steps for a late acknowledgement and a
 * late line.
 */
export function lateEffectsOf(...args: Parameters<typeof effectsOf>): (readonly [next: State, how: string])[] {
  const [reading] = args;
  if (!mayBeLate(reading) || reading.counts) return [];
  return effectsOf(...args).filter(([, how]) => how !== "ok" || !hasUnanswered(reading));
}
