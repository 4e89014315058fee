import { acknowledge, crash, dropRecord, isClaimRunning, podsOf, removePod } from "./effects.ts";
import { endBreaks } from "./lines.ts";
import { isReadyTurn, isSessionBusy, marksFirst, mayTake, unclaimedTurnSteps } from "./sleeping.ts";
import type { Slot } from "./slot.ts";
import { BODY, ITEM, isAlive, MEMORY, OBJECT, OPERATOR, POD, SHELL, STATE, type State } from "./state.ts";
import { hasItsVolume, isUnfit, mayServe } from "./volumes.ts";

// Steps 2 (claim), 3 (journal) and 4 (acknowledge).

/** Steps of a Pod without a Secret of its name: it takes an item, or is deleted if it serves nothing. */
export function freeSteps(slot: Slot): void {
  const { body, object, isDeleted, byOperator } = slot;
  if (slot.hasTurns) unclaimedTurnSteps(slot);
  const isAlone = slot.isAssigned && slot.rules.assignedAlone === "deleted" && body !== BODY.ended;
  const isLeft = (slot.isParked || body === BODY.ended) && isUnfit(slot);
  const servesNothing =
    (isDeleted && (body === BODY.parked || body === BODY.ended)) || (byOperator && isAlive(body)) || isLeft;
  if (!slot.hasTurns && object && (servesNothing || isAlone)) {
    const next = slot.remembering(MEMORY.none);
    removePod(slot.moment, next, slot.pod);
    slot.tell(next, "retention.delete-pod");
  }
  if (!slot.isFree || slot.memory !== MEMORY.none || isDeleted) return;
  for (let item = 0; item < slot.moment.layout.items; item += 1) pollSteps(slot, item);
}

function pollSteps(slot: Slot, item: number): void {
  const { moment, rules, operator, pod } = slot;
  const itemAt = moment.layout.item(item);
  const isOffered = moment.byte(itemAt + ITEM.state) === STATE.queued && !moment.byte(itemAt + ITEM.offer);
  if (!isOffered || moment.byte(itemAt + ITEM.stamp) >= rules.acknowledgements) return;
  const next = slot.fork();
  next[itemAt + ITEM.offer] = operator + 1;
  moment.tell(next, { name: "claim.poll", outcome: "ok", operator, pod, item, fault: true, breaks: null });
  const again = isRecorded(slot, item);
  const mustWait = slot.hasTurns
    ? !mayTake(slot, item) || isSessionBusy(slot, item)
    : (rules.oneSession || slot.hasVolumes) && rules.sessionTurn && isSessionRunning(slot, item);
  if ((again && rules.journalOnce) || mustWait || !mayServe(slot, item)) return;
  next[slot.at + POD.record] = item + 1;
  next[slot.at + POD.key] = rules.key === "before-ack" ? 1 : 0;
  next[slot.at + POD.known] = 0;
  next[slot.at + POD.ours] = 0;
  next[slot.at + POD.memory] = MEMORY.journaled;
  const breaks = again ? "S2b two Pods of one operator for one item" : null;
  moment.tell(next, { name: "claim.journal", outcome: "ok", operator, pod, item, fault: false, breaks });
  // The Secret exists, but its operator does not know: it finds out as it would after a restart.
  next[slot.at + POD.memory] = MEMORY.none;
  moment.tell(next, { name: "claim.journal", outcome: "unanswered", operator, pod, item, fault: true, breaks });
}

function isRecorded(slot: Slot, item: number): boolean {
  const { moment, operator } = slot;
  return [...podsOf(moment, operator)].some((pod) => moment.byte(moment.layout.pod(pod) + POD.record) === item + 1);
}

/** Whether the item's session has a claim whose container has not ended, or a Pod that runs it without a claim. */
function isSessionRunning({ moment, operator }: Slot, item: number): boolean {
  const { layout } = moment;
  const session = layout.sessionOf(item);
  return [...podsOf(moment, operator)].some((pod) => {
    const at = layout.pod(pod);
    const body = moment.byte(at + POD.body);
    const object = moment.byte(at + POD.object) !== OBJECT.none;
    const isAssigned = moment.byte(layout.shell(pod) + SHELL.assigned) === 1 && body === BODY.parked;
    if (isClaimRunning(moment, pod)) return layout.sessionOf(moment.byte(at + POD.record) - 1) === session;
    if (object && isAlive(body)) return layout.sessionOf(moment.byte(at + POD.serves) - 1) === session;
    return object && isAssigned && layout.rules.oneSession;
  });
}

/** Steps of a claim whose acknowledgement is due, or whose acknowledgement has no known result. */
export function acknowledgeSteps(slot: Slot): void {
  const { memory, isFree, isDeleted, rules } = slot;
  const isFresh = isInWindow(slot);
  const isClaiming = memory === MEMORY.journaled || memory === MEMORY.unanswered;
  const isRead = rules.readLive && (rules.wakeRead || slot.turn === 1);
  const isReady = isFree && (!slot.hasTurns || mayTake(slot, slot.item));
  const hasVolume = hasItsVolume(slot);
  const mayAck = isClaiming && isFresh && slot.ackUnderWay < 0 && !isDeleted && hasVolume;
  if (mayAck && (isReady || !isRead)) sendAck(slot);
  if (memory === MEMORY.journaled && !(isFresh && isReady && !isDeleted && hasVolume)) {
    const next = slot.fork();
    dropRecord(slot.moment, next, slot.pod);
    slot.tell(next, "claim.drop", { breaks: endBreaks(slot.moment, slot.pod, slot.item) });
    // If the drop fails, the operator checks again, as after a restart.
    slot.tell(slot.remembering(MEMORY.none), "operator.forget");
  }
  const mayAsk = slot.ackUnderWay !== slot.item || rules.drop === "at-once";
  if (!slot.hasKey && (memory === MEMORY.unanswered || memory === MEMORY.none) && mayAsk) whoseIsIt(slot);
}

/** Whether no other client can have been offered the item since our poll. */
function isInWindow({ moment, rules, operator, itemAt }: Slot): boolean {
  if (moment.byte(itemAt + ITEM.offer) === operator + 1 || rules.window === "nobody") return true;
  return rules.window === "first-operator" && operator > 0;
}

function sendAck(slot: Slot): void {
  const { moment, operator, item } = slot;
  const isReady = slot.hasTurns ? isReadyTurn(slot) : slot.isParked;
  const breaks = isReady ? null : "S1 an acknowledgement without a ready Pod";
  const next = slot.fork();
  const isAnswered = acknowledge(moment, next, item, operator);
  if (isAnswered && isBelieved(slot)) {
    next[slot.at + POD.memory] = MEMORY.acked;
    next[slot.at + POD.known] = next[slot.itemAt + ITEM.stamp] ?? 0;
    slot.tell(next, "claim.ack", { breaks });
    next[slot.at + POD.memory] = MEMORY.unanswered;
    next[slot.at + POD.known] = 0;
    slot.tell(next, "claim.ack", { outcome: "unanswered", fault: true });
    const crashed = moment.fork();
    acknowledge(moment, crashed, item, operator);
    slot.tell(crash(moment, crashed, operator), "claim.ack", { outcome: "crash", fault: true });
  } else if (slot.memory === MEMORY.journaled) {
    // The first request was refused. A refused repeat would prove nothing.
    dropRecord(moment, next, slot.pod);
    slot.tell(next, "claim.drop", { outcome: "refused", breaks });
  }
  const late = slot.remembering(MEMORY.unanswered);
  late[slot.operatorAt + OPERATOR.lateAck] = item + 1;
  slot.tell(late, "claim.ack", { outcome: "lost", fault: true, breaks });
  slot.tell(crash(moment, underWay(slot), operator), "claim.ack", { outcome: "crash, under way", fault: true, breaks });
}

function underWay(slot: Slot): State {
  const next = slot.fork();
  next[slot.operatorAt + OPERATOR.lateAck] = slot.item + 1;
  return next;
}

/**
 * Whether the acknowledged_at in the answer can be ours: no older than our request, or the one that the poll showed.
 */
function isBelieved({ rules, state, stamp }: Slot): boolean {
  const isKept = rules.stamp === "kept";
  // A server that keeps the first acknowledged_at returns the one that our poll showed, too.
  if (state === STATE.queued) return !(isKept && stamp > 0 && rules.olderAck === "refused");
  return rules.olderAck === "believed" || (rules.olderAck === "refused-unless-polled" && isKept && stamp > 1);
}

/** After an unanswered acknowledgement, or for a Secret without key found at the start: the operator reads the list. */
function whoseIsIt(slot: Slot): void {
  const { rules } = slot;
  const isOver = slot.isOutOfHands;
  const isOurs = !isOver && isThoughtOurs(slot);
  const isDoubtful = !isOver && isUnproven(slot);
  const isDoubted = isDoubtful && rules.doubted !== "forgotten";
  if (isOurs) own(slot, "session.own", MEMORY.acked);
  if (isDoubted) own(slot, "session.doubt", MEMORY.doubted);
  // The stamp may show that the item is another client's.
  const isKept = isDoubted ? isOwner(slot) : isOurs && !isDoubtful;
  if (isKept || marksFirst(slot)) return;
  const next = slot.fork();
  dropRecord(slot.moment, next, slot.pod);
  slot.tell(next, "session.drop", { breaks: endBreaks(slot.moment, slot.pod, slot.item) });
}

/** Whether the item's acknowledged_at does not prove whose it is. */
function isUnproven(slot: Slot): boolean {
  const { rules } = slot;
  return rules.unanswered === "by-evidence" && (rules.lateAck === "late" || !isThoughtOurs(slot));
}

function own(slot: Slot, name: "session.own" | "session.doubt", memory: number): void {
  const next = slot.remembering(memory);
  next[slot.at + POD.known] = slot.stamp;
  slot.tell(next, name);
}

function isOwner({ moment, operator, itemAt }: Slot): boolean {
  return moment.byte(itemAt + ITEM.owner) === operator + 1;
}

function isThoughtOurs(slot: Slot): boolean {
  const { rules, stamp } = slot;
  switch (rules.unanswered) {
    case "by-evidence":
      return isOwner(slot) && !(rules.stamp === "kept" && stamp > 1);
    case "by-owner":
      return isOwner(slot);
    case "ours":
      return true;
    case "not-ours":
      return false;
    default:
      return rules.unanswered satisfies never;
  }
}
