import { dropRecord, isBeaten, moveHeartbeat, settledMemory, stopItem } from "./effects.ts";
import { firstBeat } from "./first-beat.ts";
import { endBreaks } from "./lines.ts";
import { BODY, MEMORY, POD, SHELL, STATE } from "./state.ts";
import type { Turn } from "./turn.ts";

/** Memories that need another answer first, or that another step handles. */
const UNSETTLED: ReadonlySet<number> = new Set([
  MEMORY.lost,
  MEMORY.firstLost,
  MEMORY.unanswered,
  MEMORY.journaled,
  MEMORY.doubted,
]);

/** Step 6 (settle): the container has ended, its Pod is gone, or it was not and will not be opened. */
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

/** The state of the item in the list decides. */
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
  // Its container runs, but its program sends no heartbeat.
  const isMute = (body === BODY.parked || body === BODY.running) && !turn.isUnstarted;
  if (hasKey) return !turn.byOperator && isMute && (state === STATE.starting || memory === MEMORY.fenced);
  return state !== STATE.starting || turn.isDeleted || memory === MEMORY.fenced;
}

/** The item is not ours, whoever holds it: the Secret is deleted. */
function outOfHandsSteps(turn: Turn): void {
  if (turn.isOver || !turn.hasKey) settled(turn);
  // Decided on an older list; the read before the stop finds out.
  const { rules, state, known } = turn;
  if (rules.stop === "fence" && state === STATE.starting && known) firstBeat(turn, "session.fence", MEMORY.fenced);
}

/** Fence, then stop. */
function fenceSteps(turn: Turn): void {
  const { memory, state, rules } = turn;
  // While the item is stopping no value is compared: only the stamp counts.
  if (state === STATE.stopping) stop(turn);
  else if (state === STATE.starting) firstBeat(turn, "session.fence", MEMORY.fenced);
  else if (memory === MEMORY.fenced) {
    if (rules.onPodFailure !== "Release") stop(turn);
  } else if (memory === MEMORY.outdated) {
    // Another holder sends heartbeats: check again later.
    turn.tell(turn.remembering(settledMemory(turn.moment.state, turn.at)), "operator.forget");
  } else if (memory !== MEMORY.snapshot) {
    turn.tell(turn.remembering(MEMORY.snapshot), "session.snapshot");
  } else fence(turn);
}

/** A heartbeat with the value that did not change. A live holder would have sent one in that time. */
function fence(turn: Turn): void {
  const { moment, rules, item, operator, holder } = turn;
  const isBusy = isBeaten(moment, item, operator);
  if (rules.fenceStill && isBusy) return;
  const isOthers = isBusy && moment.layout.sideOf(holder) !== operator;
  const breaks = isOthers ? "S3 takes over a lease that somebody else beats" : null;
  // The operator that keeps the lease may still open the item after a heartbeat before the opening.
  const isKept = turn.byOperator && !turn.isOver && !turn.hasKey && !turn.isDeleted;
  const next = turn.held();
  moveHeartbeat(moment, next, item);
  next[turn.at + POD.memory] = isKept ? MEMORY.leased : MEMORY.fenced;
  turn.tell(next, isKept ? "session.take" : "session.fence", { breaks });
  next[turn.at + POD.memory] = settledMemory(moment.state, turn.at);
  turn.tell(next, isKept ? "session.take" : "session.fence", { outcome: "unanswered", fault: true, breaks });
}

/** Stops without a fence, as the older rules did. */
function stopUnfenced(turn: Turn): void {
  const { rules, state, memory } = turn;
  if (rules.stop === "unbeaten-since-the-end") {
    const isBeaten = state === STATE.active && memory !== MEMORY.snapshot;
    if (isBeaten) settled(turn);
    if (isBeaten || (state === STATE.starting && !turn.isSameStamp)) return;
  }
  stop(turn);
}

/** lease: Operator, with the lease held: an unbroken chain of accepted heartbeats needs no fence. */
function heldSteps(turn: Turn): void {
  const { memory, rules, hasKey, state } = turn;
  // With a key, an earlier process opened it after all.
  const isUnopened = memory === MEMORY.leased && !(turn.isShell && hasKey);
  const isOver = isUnopened ? !(turn.isParked && !turn.isDeleted && !hasKey) : turn.isOver;
  if (!isOver) return;
  if (turn.isOutOfHands) settled(turn);
  else if (rules.onPodFailure !== "Release" || state === STATE.stopping) stop(turn);
  if (rules.onPodFailure !== "Stop" && state === STATE.active) {
    // A last heartbeat, for the shortest lease.
    const next = turn.remembering(MEMORY.fenced);
    moveHeartbeat(turn.moment, next, turn.item);
    turn.tell(next, "session.let-go", { breaks: endBreaks(turn.moment, turn.pod, turn.item) });
  }
}

/**
 * lease: Operator, no answer for a TTL: the item is watched until the lease has certainly lapsed. An item told to stop
 * is still ours to stop.
 */
function silentSteps(turn: Turn): void {
  const { rules, state, holder, moment, operator } = turn;
  if (!turn.isOver && turn.hasKey) return;
  const isLapsing = state === STATE.active && holder !== 0 && moment.layout.sideOf(holder) === operator;
  if (turn.isOutOfHands || !turn.isSameStamp || rules.silence === "forgotten") settled(turn);
  else if (state === STATE.stopping) stop(turn);
  else if (!isLapsing) settled(turn);
}

/**
 * Steps of an item that may be ours or another client's. The operator sends one heartbeat if none was sent, and watches
 * the item until it lapses. It never opens the item, nor stops it while it is live. A changed heartbeat is another
 * client's.
 */
export function doubtSteps(turn: Turn): void {
  const { memory, state, moment } = turn;
  if (memory !== MEMORY.doubted) return;
  // An earlier process knew that the item was ours, and its opening took effect meanwhile.
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
  const stopped = stopItem(turn.moment, next, turn.item, turn.operator, true);
  turn.tell(next, "session.stop", { breaks: stopped ?? endBreaks(turn.moment, turn.pod, turn.item) });
}

/** The item is no longer ours: the Secret is deleted. */
export function settled(turn: Turn): void {
  const next = turn.fork();
  dropRecord(turn.moment, next, turn.pod);
  turn.tell(next, "session.settled", { breaks: endBreaks(turn.moment, turn.pod, turn.item) });
}

/** Shell: the Pod of an opened claim is free again, because its shell still waits. No rule of ours allows it. */
export function reuseSteps(turn: Turn): void {
  const isLost = turn.isOutOfHands || !turn.isSameStamp;
  if (turn.rules.reuse === "never" || !turn.hasKey || !turn.isParked || !turn.isUnstarted || !isLost) return;
  const next = turn.fork();
  next[turn.shellAt + SHELL.assigned] = 0;
  dropRecord(turn.moment, next, turn.pod);
  turn.tell(next, "session.settled", { breaks: endBreaks(turn.moment, turn.pod, turn.item) });
}
