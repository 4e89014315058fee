import { dropRecord, isClaimRunning, podsOf, removePod } from "./effects.ts";
import { endBreaks } from "./lines.ts";
import type { Slot } from "./slot.ts";
import { BODY, isAlive, MEMORY, OBJECT, PHASE, POD, SLEEP, type State, sleepMark, TURN } from "./state.ts";
import { isUnfit } from "./volumes.ts";

// Sessions that sleep in their Pod: what operators do. Each turn of a Pod is a slot with its own Secret.

/** What a late delete is, in SLEEP.lateDelete: that of a removal, or of the claim of a turn. */
const BY_REMOVAL = 1;
const byClaim = (turn: number): number => turn + 1;

/** The turn whose claim sent a late delete; null: a removal sent it. */
export function deletingTurn(lateDelete: number): number | null {
  return lateDelete === BY_REMOVAL ? null : lateDelete - 1;
}

/** The Pod's object changed: requests with its earlier resourceVersion are refused. */
export function changePod({ rules, sleepAt }: Slot, next: State): void {
  if (rules.touchVersion) next[sleepAt + SLEEP.lateTouch] = 0;
  if (rules.sleepVersion) next[sleepAt + SLEEP.lateSleep] = 0;
  const isRemoval = next[sleepAt + SLEEP.lateDelete] === BY_REMOVAL;
  if (isRemoval ? rules.removalVersion : rules.deleteVersion) next[sleepAt + SLEEP.lateDelete] = 0;
}

/** Marks the Pod as assigned to the item's session. */
export function assign(slot: Slot): void {
  const session = slot.moment.layout.sessionOf(slot.item);
  const next = slot.fork();
  next[slot.sleepAt + SLEEP.phase] = PHASE.assigned;
  next[slot.sleepAt + SLEEP.session] = session;
  changePod(slot, next);
  slot.tell(next, "session.touch");
  if (!slot.rules.lateRequests) return;
  const late = slot.fork();
  late[slot.sleepAt + SLEEP.lateTouch] = session;
  slot.tell(late, "session.touch", { outcome: "lost", fault: true });
}

/** Reports the deletion of a Pod whose session is given up, and that its request may land late. */
export function tellDeletion(slot: Slot, next: State): void {
  slot.tell(next, "session.delete-pod");
  if (!slot.hasTurns || !slot.rules.lateRequests || slot.moment.byte(slot.sleepAt + SLEEP.lateDelete)) return;
  const late = slot.fork();
  late[slot.sleepAt + SLEEP.lateDelete] = byClaim(slot.turn);
  slot.tell(late, "session.delete-pod", { outcome: "lost", fault: true });
}

const mayStay = ({ object, isTerminating, isDeleted }: Slot): boolean => object && !isTerminating && !isDeleted;

/**
 * The end of a claim: whether the Pod must be marked as sleeping before its Secret is deleted. Reports that step. The
 * Pod of a claim that was never opened still sleeps, or was never used.
 */
export function marksFirst(slot: Slot): boolean {
  const { rules, hasKey, turn, hasTurns } = slot;
  if (!hasTurns || !hasKey || !mayStay(slot) || rules.sleep === "after-secret") return false;
  if (rules.endedRecord ? slot.ended >= turn : !slot.isAssigned) return false;
  mark(slot);
  return true;
}

function mark(slot: Slot): void {
  const { sleepAt, turn } = slot;
  const next = slot.fork();
  next[sleepAt + SLEEP.phase] = PHASE.sleeping;
  next[sleepAt + SLEEP.ended] = turn;
  next[sleepAt + SLEEP.session] = slot.moment.layout.sessionOf(slot.item);
  changePod(slot, next);
  slot.tell(next, "session.sleep");
  if (!slot.rules.lateRequests) return;
  const late = slot.fork();
  late[sleepAt + SLEEP.lateSleep] = sleepMark(slot.moment.layout.sessionOf(slot.item), turn);
  slot.tell(late, "session.sleep", { outcome: "lost", fault: true });
}

/** Without the rule: whether the Pod must be marked after its Secret is deleted. */
export function marksLater(slot: Slot): boolean {
  return slot.hasTurns && slot.rules.sleep === "after-secret" && slot.hasKey && mayStay(slot) && slot.ended < slot.turn;
}

function restStep(slot: Slot): void {
  const next = slot.remembering(MEMORY.none);
  if (mayStay(slot)) {
    next[slot.sleepAt + SLEEP.phase] = PHASE.sleeping;
    next[slot.sleepAt + SLEEP.ended] = slot.turn;
    changePod(slot, next);
  }
  slot.tell(next, "session.sleep");
}

/** Steps of a turn with a claim. Returns whether it has no others: its end is on record, so its item was settled. */
export function claimedTurnSteps(slot: Slot): boolean {
  const { rules, turn, hasKey, pod, item, moment } = slot;
  const isSettled = rules.endedRecord && slot.ended >= turn;
  if (isSettled) {
    const next = slot.fork();
    dropRecord(moment, next, pod);
    slot.tell(next, "session.settled", { breaks: endBreaks(moment, pod, item) });
  } else if (rules.sleepEnd === "item-settled" && hasKey && slot.isOutOfHands && mayStay(slot)) mark(slot);
  return isSettled;
}

/** Steps of a turn without a claim: it is added, or skipped, or its Pod is deleted. */
export function unclaimedTurnSteps(slot: Slot): void {
  if (slot.memory === MEMORY.resting) {
    restStep(slot);
    return;
  }
  if (slot.turn === 1) strayStep(slot);
  if (mayAdd(slot)) {
    const next = slot.fork();
    next[slot.at + POD.body] = BODY.parked;
    changePod(slot, next);
    slot.tell(next, "turn.add");
  }
  if (isNext(slot) && slot.body === BODY.ended) {
    const next = slot.fork();
    next[slot.sleepAt + SLEEP.ended] = slot.turn;
    changePod(slot, next);
    slot.tell(next, "turn.skip");
  }
  if (slot.isLocked) lockedSteps(slot);
  else if (isNext(slot)) removalStep(slot);
}

/** Whether the Pod sleeps, and this is the turn for its session's next item. */
function isNext(slot: Slot): boolean {
  return isThere(slot) && slot.phase === PHASE.sleeping && slot.ended === slot.turn - 1;
}

const isThere = ({ object, isTerminating }: Slot): boolean => object && !isTerminating;

function mayAdd(slot: Slot): boolean {
  if (slot.body !== BODY.absent || slot.isDeleted || !isThere(slot)) return false;
  if (slot.rules.nextTurn === "after-end") return isNext(slot);
  return (
    slot.phase !== PHASE.parked && slot.moment.byte(slot.moment.layout.pod(slot.pod - 1) + POD.body) !== BODY.absent
  );
}

/** A Pod that nothing claims, and that does not sleep, is deleted; so is one at its last turn when the Environment is. */
function strayStep(slot: Slot): void {
  const { moment, rules, phase, isDeleted, pod } = slot;
  const { layout } = moment;
  const isClaimed = layout.turnsOf(pod).some((turn) => {
    const at = layout.pod(turn);
    const isLocked = moment.byte(layout.turn(turn) + TURN.lock);
    return moment.byte(at + POD.record) || moment.byte(at + POD.memory) !== MEMORY.none || isLocked;
  });
  if (!isThere(slot) || isClaimed) return;
  const isAlone = phase === PHASE.assigned && rules.assignedAlone === "deleted";
  if (isAlone && isTakenBack(slot)) return;
  const isUnused =
    (isDeleted && (phase === PHASE.parked || slot.ended === rules.turns)) || (phase === PHASE.parked && isUnfit(slot));
  if (!isAlone && !isUnused) return;
  const hasFiles = moment.byte(slot.sleepAt + SLEEP.files) !== 0;
  const isLoss = hasFiles && !isDeleted && rules.secretDeletion === "never";
  const next = slot.fork();
  removePod(moment, next, pod);
  const breaks = isLoss ? "S12 a Pod with a session's files is deleted because nothing claims it" : null;
  slot.tell(next, "retention.delete-pod", { breaks });
}

/** Whether a Pod without a claim sleeps again. Reports that step. Its log shows whether the program of its turn started. */
function isTakenBack(slot: Slot): boolean {
  const { moment, rules, sleepAt, isDeleted, ended, pod } = slot;
  const { layout } = moment;
  if (isDeleted || rules.takeBack === "none" || !moment.byte(sleepAt + SLEEP.files)) return false;
  const turns = layout.turnsOf(pod);
  const open = turns[ended];
  const body = open === undefined ? BODY.ended : moment.byte(layout.pod(open) + POD.body);
  const mayStay = rules.takeBack === "if-waiting" ? body === BODY.parked : !isAlive(body);
  if (!mayStay) return false;
  const next = slot.fork();
  next[sleepAt + SLEEP.phase] = PHASE.sleeping;
  if (body === BODY.ended && open !== undefined) next[sleepAt + SLEEP.ended] = ended + 1;
  changePod(slot, next);
  slot.tell(next, "session.sleep");
  return true;
}

/** Expiry, yielding, or the end of the Environment: the Pod of a sleeping session must be deleted. */
function removalStep(slot: Slot): void {
  const { rules, moment, sleepAt, isDeleted } = slot;
  const next = slot.fork();
  if (!rules.removalLock) {
    if (!moment.byte(sleepAt + SLEEP.lateDelete)) sendDelete(slot);
    return;
  }
  next[slot.turnAt + TURN.lock] = 1;
  slot.tell(next, "removal.lock", { fault: !isDeleted });
  if (!rules.lateRequests) return;
  const late = slot.fork();
  late[sleepAt + SLEEP.lateLock] = slot.turn;
  slot.tell(late, "removal.lock", { outcome: "lost", fault: true });
}

/** Steps of a removal that holds its lock. Any process finishes what another one began. */
function lockedSteps(slot: Slot): void {
  const isDue = isNext(slot);
  if (isDue || (!slot.rules.removalRead && isThere(slot))) sendDelete(slot);
  if (isDue && slot.rules.removalEnd === "carried-out") return;
  const next = slot.fork();
  next[slot.turnAt + TURN.lock] = 0;
  slot.tell(next, "removal.unlock");
}

/** The delete lands at any time from now on. */
function sendDelete(slot: Slot): void {
  const next = slot.fork();
  next[slot.sleepAt + SLEEP.lateDelete] = BY_REMOVAL;
  slot.tell(next, "removal.delete-pod", { fault: !slot.rules.removalLock });
}

/** Whether the Pod may take the item: one that sleeps, only an item of its session. */
export function mayTake(slot: Slot, item: number): boolean {
  return !slot.rules.wakeSession || isOfSession(slot, item);
}

function isOfSession(slot: Slot, item: number): boolean {
  if (slot.phase !== PHASE.sleeping) return true;
  return slot.moment.byte(slot.sleepAt + SLEEP.session) === slot.moment.layout.sessionOf(item);
}

/** Whether the turn waits, and is the one for the claimed item. */
export function isReadyTurn(slot: Slot): boolean {
  const isFirst = slot.turn === 1 && slot.phase === PHASE.parked;
  return slot.isParked && !slot.isLocked && (isFirst || isNext(slot)) && isOfSession(slot, slot.item);
}

/** Whether a Pod runs the item's session, or another Pod than this one can still wake for it. */
export function isSessionBusy(slot: Slot, item: number): boolean {
  const { moment, rules, operator } = slot;
  const { layout } = moment;
  const session = layout.sessionOf(item);
  return [...podsOf(moment, operator)].some((pod) => {
    const [at, sleepAt] = [layout.pod(pod), layout.sleep(pod)];
    const body = moment.byte(at + POD.body);
    const object = moment.byte(at + POD.object) !== OBJECT.none;
    const isMarked = object && moment.byte(sleepAt + SLEEP.session) === session;
    const phase = moment.byte(sleepAt + SLEEP.phase);
    if (isMarked && phase === PHASE.sleeping && sleepAt !== slot.sleepAt && rules.freshPod !== "any-time") return true;
    if (!rules.sessionTurn) return false;
    const record = moment.byte(at + POD.record);
    const isClaimed = isClaimRunning(moment, pod) && layout.sessionOf(record - 1) === session;
    return isClaimed || (isMarked && (isAlive(body) || phase === PHASE.assigned));
  });
}
