import { dropRecord, isBeaten, moveHeartbeat, settledMemory, stopItem } from "./effects.ts";
import { firstBeat } from "./first-beat.ts";
import { BODY, MEMORY, POD, STATE } from "./state.ts";
import type { Turn } from "./turn.ts";

/** What has to be found out first, or is another step's matter. */
const UNSETTLED: ReadonlySet<number> = new Set([
  MEMORY.lost,
  MEMORY.firstLost,
  MEMORY.unanswered,
  MEMORY.journaled,
  MEMORY.doubted,
]);

/** 6. Settle: the container has ended, its Pod is gone, or it was not and will not be opened. */
export function settleSteps(turn: Turn): void {
  const { memory, rules, hasKey } = turn;
  if (UNSETTLED.has(memory) || (!hasKey && memory === MEMORY.none)) return;
  if (memory === MEMORY.silent) silentSteps(turn);
  else if (isInHand(memory) && rules.inHand === "stop") heldSteps(turn);
  else if (memory !== MEMORY.leased && isToSettle(turn)) settleByLook(turn);
}

function isInHand(memory: number): boolean {
  return memory === MEMORY.beating || memory === MEMORY.echoLost || memory === MEMORY.leased;
}

/** What the list shows of the item says what is to be done. */
function settleByLook(turn: Turn): void {
  const { rules } = turn;
  if (turn.isOutOfHands || turn.isAbsent || (rules.stop !== "unbeaten-since-the-end" && !turn.isSameStamp)) {
    outOfHandsSteps(turn);
  } else if (rules.stop === "fence") fenceSteps(turn);
  else stopUnfenced(turn);
}

function isToSettle(turn: Turn): boolean {
  const { hasKey, memory, state, body } = turn;
  if (turn.isOver) return true;
  // Its container runs and its program beats nobody.
  const isMute = body === BODY.parked || body === BODY.running;
  if (hasKey) return !turn.byOperator && isMute && (state === STATE.starting || memory === MEMORY.fenced);
  return state !== STATE.starting || turn.isDeleted || memory === MEMORY.fenced;
}

/** Whoever has it, it is no matter of ours: the Secret goes. */
function outOfHandsSteps(turn: Turn): void {
  if (turn.isOver || !turn.hasKey) settled(turn);
  // Decided on an older list. The look before the stop finds it out.
  const { rules, state, known } = turn;
  if (rules.stop === "fence" && state === STATE.starting && known) firstBeat(turn, "session.fence", MEMORY.fenced);
}

/** Fence, then stop. */
function fenceSteps(turn: Turn): void {
  const { memory, state, rules } = turn;
  // While it is stopping no value is compared: only the stamp speaks.
  if (state === STATE.stopping) stop(turn);
  else if (state === STATE.starting) firstBeat(turn, "session.fence", MEMORY.fenced);
  else if (memory === MEMORY.fenced) {
    if (rules.onPodFailure !== "Release") stop(turn);
  } else if (memory === MEMORY.outdated) {
    // Somebody beats: looks again later.
    turn.tell(turn.remembering(settledMemory(turn.moment.state, turn.at)), "operator.forget");
  } else if (memory !== MEMORY.snapshot) {
    turn.tell(turn.remembering(MEMORY.snapshot), "session.snapshot");
  } else fence(turn);
}

/** A beat with the value that stood still. A live holder would have beaten in that time. */
function fence(turn: Turn): void {
  const { moment, rules, item, operator, holder } = turn;
  const isBusy = isBeaten(moment, item, operator);
  if (rules.fenceStill && isBusy) return;
  const isOthers = isBusy && moment.layout.sideOf(holder) !== operator;
  const breaks = isOthers ? "S3 takes over a lease that somebody else beats" : null;
  // What is beaten before it was opened may be opened yet, by the operator that keeps its lease.
  const isKept = turn.byOperator && !turn.isOver && !turn.hasKey && !turn.isDeleted;
  const next = turn.held();
  moveHeartbeat(moment, next, item);
  next[turn.at + POD.memory] = isKept ? MEMORY.leased : MEMORY.fenced;
  turn.tell(next, isKept ? "session.take" : "session.fence", { breaks });
  next[turn.at + POD.memory] = settledMemory(moment.state, turn.at);
  turn.tell(next, isKept ? "session.take" : "session.fence", { outcome: "unanswered", fault: true, breaks });
}

/** Without a fence: what the older rules did. */
function stopUnfenced(turn: Turn): void {
  const { rules, state, memory } = turn;
  if (rules.stop === "unbeaten-since-the-end") {
    const isBeaten = state === STATE.active && memory !== MEMORY.snapshot;
    if (isBeaten) settled(turn);
    if (isBeaten || (state === STATE.starting && !turn.isSameStamp)) return;
  }
  stop(turn);
}

/** lease: Operator, the lease in hand: an unbroken chain of accepted beats needs no fence. */
function heldSteps(turn: Turn): void {
  const { memory, rules, hasKey, state } = turn;
  const isUnopened = memory === MEMORY.leased && !(turn.isParked && !turn.isDeleted && !hasKey);
  if (!(memory === MEMORY.leased ? isUnopened : turn.isOver)) return;
  if (turn.isOutOfHands) settled(turn);
  else if (rules.onPodFailure !== "Release" || state === STATE.stopping) stop(turn);
  if (rules.onPodFailure !== "Stop" && state === STATE.active) {
    // A last beat, for the shortest lease.
    const next = turn.remembering(MEMORY.fenced);
    moveHeartbeat(turn.moment, next, turn.item);
    turn.tell(next, "session.let-go");
  }
}

/** lease: Operator, nobody answered for a TTL: looked at until it has surely lapsed. What is told to stop is still ours to stop. */
function silentSteps(turn: Turn): void {
  const { rules, state, holder, moment, operator } = turn;
  if (!turn.isOver && turn.hasKey) return;
  const isLapsing = state === STATE.active && holder !== 0 && moment.layout.sideOf(holder) === operator;
  if (turn.isOutOfHands || !turn.isSameStamp || rules.silence === "forgotten") settled(turn);
  else if (state === STATE.stopping) stop(turn);
  else if (!isLapsing) settled(turn);
}

/**
 * Of an item that may be ours or another client's: what nobody beats yet is beaten once, and looked at until it lapses. It is
 * never opened, nor stopped while it is live. A heartbeat that moves is another client's.
 */
export function doubtSteps(turn: Turn): void {
  const { memory, state, moment } = turn;
  if (memory !== MEMORY.doubted) return;
  // The opening of a process before, which knew it for ours, landed meanwhile.
  if (turn.hasKey) turn.tell(turn.remembering(MEMORY.none), "operator.forget");
  else if (turn.isOutOfHands || !turn.isSameStamp) settled(turn);
  else if (state === STATE.stopping) stop(turn);
  else if (state === STATE.starting) firstBeat(turn, "session.fence", MEMORY.doubted, MEMORY.doubted);
  else if (isBeaten(moment, turn.item, turn.operator)) settled(turn);
}

function stop(turn: Turn): void {
  const inHand = isInHand(turn.memory);
  const next =
    inHand && turn.rules.inHand === "stop" ? turn.remembering(turn.hasKey ? MEMORY.none : MEMORY.acked) : turn.fork();
  const breaks = stopItem(turn.moment, next, turn.item, turn.operator, true);
  turn.tell(next, "session.stop", { breaks });
}

/** The item is out of our hands: the Secret goes. */
export function settled(turn: Turn): void {
  const next = turn.fork();
  dropRecord(turn.moment, next, turn.pod);
  turn.tell(next, "session.settled");
}
