import { hasLineOfOthers } from "./lines.ts";
import { Moment } from "./moment.ts";
import { Slot } from "./slot.ts";
import {
  BODY,
  holdingPod,
  ITEM,
  isAlive,
  KNOWN,
  type Layout,
  MEMORY,
  OBJECT,
  OPERATOR,
  PHASE,
  POD,
  SHELL,
  SLEEP,
  STATE,
  type State,
  TURN,
  VOLUME,
} from "./state.ts";
import { isServed, isWaiting } from "./volumes.ts";

/**
 * What the protocol promises, with the text of a failure: S properties for every state or step, L for all states
 * together.
 */
export const PROPERTIES = {
  S1: "no acknowledgement without a durable Secret and a Pod that was ready when read just before",
  S2: "at most one container believes that it holds an item, and no client adopts another's lease",
  S2b: "one operator gives an item at most one Pod",
  S3: "no stop hits an item that is queued for others or that another client holds",
  S4: "no container starts for an item that its own operator never acknowledged",
  S5: "one operator runs at most one Pod of a session",
  S6: "no line reaches a Pod that was given to another session",
  S7: "no line is sent for an item that its operator no longer holds, and no operator gives up an item that one of its lines can still start",
  S8: "no Pod whose line was sent looks free",
  S9: "the program of a turn starts at most once, and at most one turn of a Pod runs",
  S10: "no Pod with the files of a session runs another session",
  S11: "a sleeping Pod runs no program, and holds no item, except for the opened claim of its next turn",
  S12: "no operator deletes a Pod with a session's files as left behind, after its turn ended, or while it is woken",
  S13: "no volume ever serves two sessions",
  S14: "no session with a volume gets another one, or runs without it",
  S15: "no operator deletes a volume with a session's files before it was unused for as long as volumes are kept, or gives a session one that is being deleted",
  L: "from every state, without a further fault, every item gets queued or stopped, with no Secret and no container left, and every sleeping Pod can wake, and it is known which sessions have a volume, and a Pod waits for the next item of the only session, if Pods are replaced",
  S3p: "strict: S3 for an item that is stopping already",
  S2w: "strict: no two containers run at the same time for an item",
  S2o: "strict, lease: Operator: no container starts unless its operator holds the lease",
} as const;

export type Property = keyof typeof PROPERTIES;

/** Whether nothing is half done. */
export function isSettled(layout: Layout, state: State): boolean {
  const { rules } = layout;
  for (let item = 0; item < layout.items; item += 1) {
    const is = state[layout.item(item) + ITEM.state];
    const isForgotten = rules.secretDeletion !== "never" && !isRecorded(layout, state, item);
    if (is !== STATE.queued && is !== STATE.stopped && !isForgotten) return false;
  }
  for (let volume = 0; volume < layout.volumes; volume += 1) if (!isVolumeKnown(layout, state, volume)) return false;
  if (layout.hasVolumes && !isServable(layout, state)) return false;
  for (let pod = 0; pod < layout.pods; pod += 1) {
    const at = layout.pod(pod);
    if (state[at + POD.record] || state[at + POD.memory] !== MEMORY.none || isAlive(state[at + POD.body] ?? 0))
      return false;
    const isDeleted = state[layout.operator(layout.operatorOf(pod)) + OPERATOR.deleted];
    if (state[at + POD.object] && isDeleted) return false;
    if (layout.hasTurns && !isTurnSettled(layout, state, pod)) return false;
    const isAlone = state[layout.shell(pod) + SHELL.assigned] && state[at + POD.object];
    if (isAlone && rules.assignedAlone === "deleted") return false;
  }
  return true;
}

/** Whether a sleeping Pod can wake, or has had its last turn. */
function isTurnSettled(layout: Layout, state: State, pod: number): boolean {
  const sleepAt = layout.sleep(pod);
  const phase = state[sleepAt + SLEEP.phase];
  if (state[layout.turn(pod) + TURN.lock]) return false;
  if (state[layout.pod(pod) + POD.object] !== OBJECT.exists) return true;
  if (phase === PHASE.assigned) return layout.rules.assignedAlone !== "deleted";
  const isNext = phase === PHASE.sleeping && state[sleepAt + SLEEP.ended] === layout.turnOf(pod) - 1;
  return !isNext || state[layout.pod(pod) + POD.body] === BODY.parked;
}

/** Whether no session waits because it is unknown which sessions have a volume. */
function isVolumeKnown(layout: Layout, state: State, volume: number): boolean {
  const known = state[layout.volume(volume) + VOLUME.known] ?? 0;
  if (known === KNOWN.nothing) return layout.rules.volumeList === "never";
  return known < KNOWN.doubted;
}

/**
 * Whether a Pod waits for the next item of a session. Several sessions may need each other's places, and a Pod with turns
 * stays at its last one.
 */
function isServable(layout: Layout, state: State): boolean {
  const { rules } = layout;
  if (!rules.newVolumes || layout.hasTurns || layout.operators > 1 || (layout.items > 1 && !rules.oneSession))
    return true;
  if (state[layout.operator(0) + OPERATOR.deleted]) return true;
  const moment = new Moment(layout, () => {});
  moment.state = state;
  for (let item = 0; item < layout.items; item += 1) {
    const mayBeServed = layout.podsOf(0).some((pod) => {
      const slot = new Slot(moment, pod);
      return slot.isFree && isServed(slot, item);
    });
    if (isWaiting(moment, item) && !mayBeServed) return false;
  }
  return true;
}

function isRecorded(layout: Layout, state: State, item: number): boolean {
  for (let pod = 0; pod < layout.pods; pod += 1) if (state[layout.pod(pod) + POD.record] === item + 1) return true;
  return false;
}

/** The property that a state alone breaks; null: none. */
export function brokenBy(layout: Layout, state: State): string | null {
  const { rules } = layout;
  for (let item = 0; item < layout.items; item += 1) {
    const [holding, running] = containersOf(layout, state, item);
    if (holding > 1 && rules.worker !== "late") return "S2 two containers believe that they hold one item";
    if (rules.strict && holding + running > 1) return "S2w two containers run for one item";
  }
  for (let pod = 0; layout.isShell && pod < layout.pods; pod += 1) {
    const broken = shellBrokenBy(layout, state, pod);
    if (broken) return broken;
  }
  for (let pod = 0; layout.hasTurns && pod < layout.pods; pod += layout.rules.turns) {
    const broken = sleepBrokenBy(layout, state, pod);
    if (broken) return broken;
  }
  for (let operator = 0; layout.hasVolumes && operator < layout.operators; operator += 1) {
    if (hasTwoVolumes(layout, state, operator)) return "S14 a session has two volumes";
  }
  if (!rules.oneSession && !layout.hasVolumes) return null;
  for (let operator = 0; operator < layout.operators; operator += 1) {
    if (hasTwoPods(layout, state, operator))
      return `S5 two Pods of one operator run${layout.hasTurns ? " or keep" : ""} one session`;
  }
  return null;
}

/** What a waiting shell breaks by the lines that were sent to it. */
function shellBrokenBy(layout: Layout, state: State, pod: number): string | null {
  const [at, shellAt] = [layout.pod(pod), layout.shell(pod)];
  if (state[at + POD.body] !== BODY.parked || state[at + POD.object] !== OBJECT.exists) return null;
  const record = state[at + POD.record] ?? 0;
  if (record && hasLineOfOthers(layout.rules, state[shellAt + SHELL.lines] ?? 0, record))
    return "S6 a line is on its way to a Pod of another session";
  const looksFree = !record && !(layout.hasTurns ? isEnded(layout, state, pod) : state[shellAt + SHELL.assigned]);
  return looksFree && state[shellAt + SHELL.sent] ? "S8 a Pod whose line was sent looks free" : null;
}

/** Whether the turn is not the one for the next item. */
function isEnded(layout: Layout, state: State, pod: number): boolean {
  const [at, turn] = [layout.sleep(pod), layout.turnOf(pod)];
  const phase = turn === 1 ? PHASE.parked : PHASE.sleeping;
  return state[at + SLEEP.phase] !== phase || state[at + SLEEP.ended] !== turn - 1;
}

/** What a sleeping Pod breaks, by its first turn. */
function sleepBrokenBy(layout: Layout, state: State, pod: number): string | null {
  const isAsleep = state[layout.sleep(pod) + SLEEP.phase] === PHASE.sleeping;
  if (!isAsleep || state[layout.pod(pod) + POD.object] !== OBJECT.exists) return null;
  const turns = layout.turnsOf(pod);
  const next = turns[state[layout.sleep(pod) + SLEEP.ended] ?? 0];
  const isAwake = next !== undefined && next !== pod && state[layout.pod(next) + POD.key] === 1;
  if (turns.some((turn) => isAlive(state[layout.pod(turn) + POD.body] ?? 0) && !(isAwake && turn === next)))
    return "S11 a sleeping Pod runs a program";
  if (layout.rules.secretDeletion !== "never" || turns.some((turn) => state[layout.pod(turn) + POD.record]))
    return null;
  for (let item = 0; item < layout.items; item += 1) {
    const at = layout.item(item);
    const holder = holdingPod(state[at + ITEM.holder] ?? 0);
    // An item that another client acknowledged may still be held by a container that has ended.
    const isOurs = ((state[at + ITEM.acked] ?? 0) & (1 << layout.operatorOf(pod))) !== 0;
    if (isOurs && holder !== null && turns.includes(holder)) return "S11 a sleeping Pod holds an item";
  }
  return null;
}

/** Whether two volumes of an operator are one session's, by their assignment or by their files. */
function hasTwoVolumes(layout: Layout, state: State, operator: number): boolean {
  const owners = new Set<number>();
  for (const volume of layout.volumesOf(operator)) {
    const at = layout.volume(volume);
    const owner = state[at + VOLUME.session] || (state[at + VOLUME.files] ?? 0);
    if (!state[at + VOLUME.object] || !owner) continue;
    if (owners.has(owner)) return true;
    owners.add(owner);
  }
  return false;
}

/** Containers that believe in the item's lease, and those that run without an answered heartbeat. */
function containersOf(layout: Layout, state: State, item: number): [holding: number, running: number] {
  let holding = 0;
  let running = 0;
  for (let pod = 0; pod < layout.pods; pod += 1) {
    const at = layout.pod(pod);
    if (state[at + POD.serves] !== item + 1) continue;
    if (state[at + POD.body] === BODY.holding) holding += 1;
    if (state[at + POD.body] === BODY.running) running += 1;
  }
  return [holding, running];
}

/** Whether two Pods run one session, or keep its files. The Pods of a lost node are unknown. */
function hasTwoPods(layout: Layout, state: State, operator: number): boolean {
  const sessions = new Set<number>();
  for (const pod of layout.podsOf(operator)) {
    const object = state[layout.pod(pod) + POD.object];
    if (!object) continue;
    const running = layout.turnsOf(pod).find((turn) => isAlive(state[layout.pod(turn) + POD.body] ?? 0));
    const kept = object === OBJECT.exists && layout.hasTurns ? (state[layout.sleep(pod) + SLEEP.files] ?? 0) : 0;
    const session = running === undefined ? kept : layout.sessionOf((state[layout.pod(running) + POD.serves] ?? 0) - 1);
    if (session && sessions.has(session)) return true;
    sessions.add(session);
  }
  return false;
}
