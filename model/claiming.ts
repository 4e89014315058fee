import { acknowledge, crash, dropRecord, podsOf, removePod } from "./effects.ts";
import { endBreaks } from "./lines.ts";
import { BODY, ITEM, isAlive, MEMORY, OBJECT, OPERATOR, POD, SHELL, STATE, type State } from "./state.ts";
import type { Turn } from "./turn.ts";

// Steps 2 (claim), 3 (journal) and 4 (acknowledge).

/** Steps of a Pod without a Secret of its name: it takes an item, or is deleted if it serves nothing. */
export function freeSteps(turn: Turn): void {
  const { body, object, isDeleted, byOperator } = turn;
  const isAlone = turn.isAssigned && turn.rules.assignedAlone === "deleted" && body !== BODY.ended;
  const servesNothing = (isDeleted && (body === BODY.parked || body === BODY.ended)) || (byOperator && isAlive(body));
  if (object && (servesNothing || isAlone)) {
    const next = turn.remembering(MEMORY.none);
    removePod(turn.moment, next, turn.pod);
    turn.tell(next, "retention.delete-pod");
  }
  if (!turn.isFree || turn.memory !== MEMORY.none || isDeleted || turn.isMoved) return;
  for (let item = 0; item < turn.moment.layout.items; item += 1) pollSteps(turn, item);
}

function pollSteps(turn: Turn, item: number): void {
  const { moment, rules, operator, pod } = turn;
  const itemAt = moment.layout.item(item);
  const isOffered = moment.byte(itemAt + ITEM.state) === STATE.queued && !moment.byte(itemAt + ITEM.offer);
  if (!isOffered || moment.byte(itemAt + ITEM.stamp) >= rules.acknowledgements) return;
  const next = turn.fork();
  next[itemAt + ITEM.offer] = operator + 1;
  moment.tell(next, { name: "claim.poll", outcome: "ok", operator, pod, item, fault: true, breaks: null });
  const again = isRecorded(turn, item);
  if ((again && rules.journalOnce) || (rules.oneSession && rules.sessionTurn && isSessionRunning(turn))) return;
  next[turn.at + POD.record] = item + 1;
  next[turn.at + POD.key] = rules.key === "before-ack" ? 1 : 0;
  next[turn.at + POD.known] = 0;
  next[turn.at + POD.ours] = 0;
  next[turn.at + POD.memory] = MEMORY.journaled;
  const breaks = again ? "S2b two Pods of one operator for one item" : null;
  moment.tell(next, { name: "claim.journal", outcome: "ok", operator, pod, item, fault: false, breaks });
  // The Secret exists, but its operator does not know: it finds out as it would after a restart.
  next[turn.at + POD.memory] = MEMORY.none;
  moment.tell(next, { name: "claim.journal", outcome: "unanswered", operator, pod, item, fault: true, breaks });
}

function isRecorded(turn: Turn, item: number): boolean {
  const { moment, operator } = turn;
  return [...podsOf(moment, operator)].some((pod) => moment.byte(moment.layout.pod(pod) + POD.record) === item + 1);
}

/** Whether the session has a claim whose container has not ended, or a Pod that runs it without a claim. */
function isSessionRunning(turn: Turn): boolean {
  const { moment, operator } = turn;
  return [...podsOf(moment, operator)].some((pod) => {
    const at = moment.layout.pod(pod);
    const body = moment.byte(at + POD.body);
    const object = moment.byte(at + POD.object) !== OBJECT.none;
    const isOver = body === BODY.ended || body === BODY.gone || !object;
    const isClaimed = moment.byte(at + POD.record) > 0 && !(moment.byte(at + POD.key) && isOver);
    const isAssigned = moment.byte(moment.layout.shell(pod) + SHELL.assigned) === 1 && body === BODY.parked;
    return isClaimed || (object && (isAlive(body) || isAssigned));
  });
}

/** Steps of a claim whose acknowledgement is due, or whose acknowledgement has no known result. */
export function acknowledgeSteps(turn: Turn): void {
  const { memory, isFree, isDeleted, rules } = turn;
  const isFresh = isInWindow(turn);
  const isClaiming = memory === MEMORY.journaled || memory === MEMORY.unanswered;
  if (isClaiming && isFresh && turn.ackUnderWay < 0 && !isDeleted && (isFree || !rules.readLive)) sendAck(turn);
  if (memory === MEMORY.journaled && !(isFresh && isFree && !isDeleted)) {
    const next = turn.fork();
    dropRecord(turn.moment, next, turn.pod);
    turn.tell(next, "claim.drop", { breaks: endBreaks(turn.moment, turn.pod, turn.item) });
    // If the drop fails, the operator checks again, as after a restart.
    turn.tell(turn.remembering(MEMORY.none), "operator.forget");
  }
  const mayAsk = turn.ackUnderWay !== turn.item || rules.drop === "at-once";
  if (!turn.hasKey && (memory === MEMORY.unanswered || memory === MEMORY.none) && mayAsk) whoseIsIt(turn);
}

/** Whether no other client can have been offered the item since our poll. */
function isInWindow({ moment, rules, operator, itemAt }: Turn): boolean {
  if (moment.byte(itemAt + ITEM.offer) === operator + 1 || rules.window === "nobody") return true;
  return rules.window === "first-operator" && operator > 0;
}

function sendAck(turn: Turn): void {
  const { moment, operator, item } = turn;
  const breaks = turn.isParked ? null : "S1 an acknowledgement without a ready Pod";
  const next = turn.fork();
  const isAnswered = acknowledge(moment, next, item, operator);
  if (isAnswered && isBelieved(turn)) {
    next[turn.at + POD.memory] = MEMORY.acked;
    next[turn.at + POD.known] = next[turn.itemAt + ITEM.stamp] ?? 0;
    turn.tell(next, "claim.ack", { breaks });
    next[turn.at + POD.memory] = MEMORY.unanswered;
    next[turn.at + POD.known] = 0;
    turn.tell(next, "claim.ack", { outcome: "unanswered", fault: true });
    const crashed = moment.fork();
    acknowledge(moment, crashed, item, operator);
    turn.tell(crash(moment, crashed, operator), "claim.ack", { outcome: "crash", fault: true });
  } else if (turn.memory === MEMORY.journaled) {
    // The first request was refused. A refused repeat would prove nothing.
    dropRecord(moment, next, turn.pod);
    turn.tell(next, "claim.drop", { outcome: "refused", breaks });
  }
  const late = turn.remembering(MEMORY.unanswered);
  late[turn.operatorAt + OPERATOR.lateAck] = item + 1;
  turn.tell(late, "claim.ack", { outcome: "lost", fault: true, breaks });
  turn.tell(crash(moment, underWay(turn), operator), "claim.ack", { outcome: "crash, under way", fault: true, breaks });
}

function underWay(turn: Turn): State {
  const next = turn.fork();
  next[turn.operatorAt + OPERATOR.lateAck] = turn.item + 1;
  return next;
}

/**
 * Whether the acknowledged_at in the answer can be ours: no older than our request, or the one that the poll showed.
 */
function isBelieved({ rules, state, stamp }: Turn): boolean {
  const isKept = rules.stamp === "kept";
  // A server that keeps the first acknowledged_at returns the one that our poll showed, too.
  if (state === STATE.queued) return !(isKept && stamp > 0 && rules.olderAck === "refused");
  return rules.olderAck === "believed" || (rules.olderAck === "refused-unless-polled" && isKept && stamp > 1);
}

/** After an unanswered acknowledgement, or for a Secret without key found at the start: the operator reads the list. */
function whoseIsIt(turn: Turn): void {
  const { rules } = turn;
  const isOver = turn.isOutOfHands || turn.isAbsent;
  const isOurs = !isOver && isThoughtOurs(turn);
  const isDoubtful = !isOver && isUnproven(turn);
  const isDoubted = isDoubtful && rules.doubted !== "forgotten";
  if (isOurs) own(turn, "session.own", MEMORY.acked);
  if (isDoubted) own(turn, "session.doubt", MEMORY.doubted);
  // The stamp may show that the item is another client's.
  const isKept = isDoubted ? isOwner(turn) : isOurs && !isDoubtful;
  if (isKept) return;
  const next = turn.fork();
  dropRecord(turn.moment, next, turn.pod);
  turn.tell(next, "session.drop", { breaks: endBreaks(turn.moment, turn.pod, turn.item) });
}

/** Whether the item's acknowledged_at does not prove whose it is. */
function isUnproven(turn: Turn): boolean {
  const { rules } = turn;
  return rules.unanswered === "by-evidence" && (rules.lateAck === "late" || !isThoughtOurs(turn));
}

function own(turn: Turn, name: "session.own" | "session.doubt", memory: number): void {
  const next = turn.remembering(memory);
  next[turn.at + POD.known] = turn.stamp;
  turn.tell(next, name);
}

function isOwner({ moment, operator, itemAt }: Turn): boolean {
  return moment.byte(itemAt + ITEM.owner) === operator + 1;
}

function isThoughtOurs(turn: Turn): boolean {
  const { rules, stamp } = turn;
  switch (rules.unanswered) {
    case "by-evidence":
      return isOwner(turn) && !(rules.stamp === "kept" && stamp > 1);
    case "by-owner":
      return isOwner(turn);
    case "ours":
      return true;
    case "not-ours":
      return false;
    default:
      return rules.unanswered satisfies never;
  }
}
