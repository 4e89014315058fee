import { dropRecord, isBeaten, moveHeartbeat, settledMemory, stopItem } from "./effects.ts";
import { firstBeat } from "./first-beat.ts";
import { endBreaks } from "./lines.ts";
import { marksFirst, marksLater } from "./sleeping.ts";
import type { Slot } from "./slot.ts";
import { BODY, MEMORY, POD, SHELL, STATE } from "./state.ts";

/** Memories that need another answer first, or that another step handles. */
const UNSETTLED: ReadonlySet<number> = new Set([
  MEMORY.lost,
  MEMORY.firstLost,
  MEMORY.unanswered,
  MEMORY.journaled,
  MEMORY.doubted,
  MEMORY.doubtedSnapshot,
  MEMORY.doubtedOutdated,
]);

/** Memories of an item that may be another client's. */
const DOUBTED: ReadonlySet<number> = new Set([MEMORY.doubted, MEMORY.doubtedSnapshot, MEMORY.doubtedOutdated]);

/** Step 6 (settle): the container has ended, its Pod is gone, or it was not and will not be opened. */
export function settleSteps(slot: Slot): void {
  const { memory, rules, hasKey } = slot;
  if (UNSETTLED.has(memory) || (!hasKey && memory === MEMORY.none)) return;
  if (memory === MEMORY.silent) silentSteps(slot);
  else if (isInHand(memory) && rules.inHand === "stop") heldSteps(slot);
  else if (memory !== MEMORY.leased && isToSettle(slot)) settleByLook(slot);
}

function isInHand(memory: number): boolean {
  return memory === MEMORY.beating || memory === MEMORY.echoLost || memory === MEMORY.leased;
}

/** The state of the item in the list decides. */
function settleByLook(slot: Slot): void {
  const { rules } = slot;
  if (slot.isOutOfHands || (rules.stop !== "unbeaten-since-the-end" && !slot.isSameStamp)) {
    outOfHandsSteps(slot);
  } else if (rules.stop === "fence") fenceSteps(slot);
  else stopUnfenced(slot);
}

function isToSettle(slot: Slot): boolean {
  const { hasKey, memory, state, body } = slot;
  if (slot.isOver) return true;
  // Its container runs, but its program sends no heartbeat.
  const isMute = (body === BODY.parked || body === BODY.running) && !slot.isUnstarted;
  if (hasKey) return !slot.byOperator && isMute && (state === STATE.starting || memory === MEMORY.fenced);
  return state !== STATE.starting || slot.isDeleted || memory === MEMORY.fenced;
}

/** The item is not ours: the Secret is deleted. */
function outOfHandsSteps(slot: Slot): void {
  if (slot.isOver || !slot.hasKey) settled(slot);
  // Decided on an older list; the read before the stop finds out.
  const { rules, state, known } = slot;
  if (rules.stop === "fence" && state === STATE.starting && known) firstBeat(slot, "session.fence", MEMORY.fenced);
}

/** Fence, then stop. */
function fenceSteps(slot: Slot): void {
  const { memory, state, rules } = slot;
  // While the item is stopping no value is compared: only the stamp counts.
  if (state === STATE.stopping) stop(slot);
  else if (state === STATE.starting) firstBeat(slot, "session.fence", MEMORY.fenced);
  else if (memory === MEMORY.fenced) {
    if (rules.onPodFailure !== "Release") stop(slot);
  } else if (memory === MEMORY.outdated) {
    // Another holder sends heartbeats: check again later.
    slot.tell(slot.remembering(settledMemory(slot.moment.state, slot.at)), "operator.forget");
  } else if (memory !== MEMORY.snapshot) {
    slot.tell(slot.remembering(MEMORY.snapshot), "session.snapshot");
  } else fence(slot);
}

/** A heartbeat with the value that did not change. A live holder would have sent one in that time. */
function fence(slot: Slot): void {
  const { moment, rules, item, operator, holder } = slot;
  const isBusy = isBeaten(moment, item, operator);
  if (rules.fenceStill && isBusy) return;
  const isOthers = isBusy && moment.layout.sideOf(holder) !== operator;
  const breaks = isOthers ? "S3 adopts a lease while another client sends heartbeats" : null;
  // The operator that keeps the lease may still open the item after a heartbeat before the opening.
  const isKept = slot.byOperator && !slot.isOver && !slot.hasKey && !slot.isDeleted;
  const next = slot.held();
  moveHeartbeat(moment, next, item);
  next[slot.at + POD.memory] = isKept ? MEMORY.leased : MEMORY.fenced;
  slot.tell(next, isKept ? "session.take" : "session.fence", { breaks });
  next[slot.at + POD.memory] = settledMemory(moment.state, slot.at);
  slot.tell(next, isKept ? "session.take" : "session.fence", { outcome: "unanswered", fault: true, breaks });
}

/** Stops without a fence, as the older rules did. */
function stopUnfenced(slot: Slot): void {
  const { rules, state, memory } = slot;
  if (rules.stop === "unbeaten-since-the-end") {
    const isBeaten = state === STATE.active && memory !== MEMORY.snapshot;
    if (isBeaten) settled(slot);
    if (isBeaten || (state === STATE.starting && !slot.isSameStamp)) return;
  }
  stop(slot);
}

/** lease: Operator, with the lease held: an unbroken chain of accepted heartbeats needs no fence. */
function heldSteps(slot: Slot): void {
  const { memory, rules, hasKey, state } = slot;
  // With a key, an earlier process opened it after all.
  const isUnopened = memory === MEMORY.leased && !(slot.isShell && hasKey);
  const isOver = isUnopened ? !(slot.isParked && !slot.isDeleted && !hasKey) : slot.isOver;
  if (!isOver) return;
  if (slot.isOutOfHands) settled(slot);
  else if (rules.onPodFailure !== "Release" || state === STATE.stopping) stop(slot);
  if (rules.onPodFailure !== "Stop" && state === STATE.active) {
    // A last heartbeat, for the shortest lease.
    const next = slot.remembering(MEMORY.fenced);
    moveHeartbeat(slot.moment, next, slot.item);
    slot.tell(next, "session.let-go", { breaks: endBreaks(slot.moment, slot.pod, slot.item) });
  }
}

/**
 * lease: Operator, no answer for a TTL: the item is watched until the lease has certainly lapsed. An item told to stop
 * is still ours to stop.
 */
function silentSteps(slot: Slot): void {
  const { rules, state, holder, moment, operator } = slot;
  if (!slot.isOver && slot.hasKey) return;
  const isLapsing = state === STATE.active && holder !== 0 && moment.layout.sideOf(holder) === operator;
  if (slot.isOutOfHands || !slot.isSameStamp || rules.silence === "forgotten") settled(slot);
  else if (state === STATE.stopping) stop(slot);
  else if (!isLapsing) settled(slot);
}

/**
 * Steps of an item that may be ours or another client's. The operator sends one heartbeat if none was sent, and watches
 * the item until it lapses. It never opens the item, nor stops it while it is live. A changed heartbeat is another
 * client's.
 */
export function doubtSteps(slot: Slot): void {
  const { memory, state } = slot;
  if (!DOUBTED.has(memory)) return;
  // An earlier process knew that the item was ours, and its opening took effect meanwhile.
  if (slot.hasKey) slot.tell(slot.remembering(MEMORY.none), "operator.forget");
  else if (slot.isOutOfHands || !slot.isSameStamp) settled(slot);
  else if (state === STATE.stopping) stop(slot);
  else if (state === STATE.starting) firstBeat(slot, "session.fence", MEMORY.doubted, MEMORY.doubted);
  else if (memory === MEMORY.doubtedOutdated) settled(slot);
  else if (memory === MEMORY.doubted) slot.tell(slot.remembering(MEMORY.doubtedSnapshot), "session.snapshot");
}

function stop(slot: Slot): void {
  const inHand = isInHand(slot.memory);
  const next =
    inHand && slot.rules.inHand === "stop" ? slot.remembering(slot.hasKey ? MEMORY.none : MEMORY.acked) : slot.fork();
  const stopped = stopItem(slot.moment, next, slot.item, slot.operator, true);
  slot.tell(next, "session.stop", { breaks: stopped ?? endBreaks(slot.moment, slot.pod, slot.item) });
}

/** The item is no longer ours: the Secret is deleted. */
export function settled(slot: Slot): void {
  if (marksFirst(slot)) return;
  const next = slot.fork();
  dropRecord(slot.moment, next, slot.pod);
  if (marksLater(slot)) next[slot.at + POD.memory] = MEMORY.resting;
  slot.tell(next, "session.settled", { breaks: endBreaks(slot.moment, slot.pod, slot.item) });
}

/** Shell: the Pod of an opened claim is free again, because its shell still waits. No rule of ours allows it. */
export function reuseSteps(slot: Slot): void {
  const isLost = slot.isOutOfHands || !slot.isSameStamp;
  if (slot.rules.reuse === "never" || !slot.hasKey || !slot.isParked || !slot.isUnstarted || !isLost) return;
  const next = slot.fork();
  next[slot.shellAt + SHELL.assigned] = 0;
  dropRecord(slot.moment, next, slot.pod);
  slot.tell(next, "session.settled", { breaks: endBreaks(slot.moment, slot.pod, slot.item) });
}
