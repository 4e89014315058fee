import { crash, deletePod, isBeaten, moveHeartbeat, removePod, stopItem } from "./effects.ts";
import { firstBeat } from "./first-beat.ts";
import { settled } from "./settling.ts";
import { tellDeletion } from "./sleeping.ts";
import type { Slot } from "./slot.ts";
import { BODY, DELIVERY, holderOfOperator, isAlive, MEMORY, POD, SHELL, STATE } from "./state.ts";

// Steps 5 (open) and 6 (watch).

/** Steps of a claim that is ours and whose container has no key yet. */
export function openSteps(slot: Slot): void {
  const { memory, state, byOperator } = slot;
  const mayOpen = slot.isParked && !slot.isDeleted && !slot.hasKey;
  if (memory === MEMORY.leased) beatOn(slot);
  if (isToOpen(slot)) open(slot);
  else if (mayOpen && memory === MEMORY.acked && state === STATE.starting && !slot.holder && byOperator) {
    firstBeat(slot, "session.take", MEMORY.leased);
    slot.tell(slot.remembering(MEMORY.firstLost), "session.take", { outcome: "lost", fault: true });
  }
  if (memory === MEMORY.leased && !mayOpen && slot.rules.inHand === "fence") {
    slot.tell(slot.remembering(MEMORY.acked), "operator.forget");
  }
  if (memory === MEMORY.firstLost) settleFirstBeat(slot);
  // An opening without an answer took effect after all.
  if (slot.isShell && slot.hasKey && (memory === MEMORY.leased || memory === MEMORY.acked)) {
    slot.tell(slot.remembering(memory === MEMORY.leased ? MEMORY.beating : MEMORY.none), "operator.forget");
  }
}

/** Whether the claim is ready to be opened. */
export function isToOpen(slot: Slot): boolean {
  const { memory, state } = slot;
  if (!slot.isParked || slot.isDeleted || slot.hasKey) return false;
  const isUnended = state === STATE.starting || state === STATE.active;
  return memory === MEMORY.leased || (memory === MEMORY.acked && !slot.byOperator && isUnended);
}

/** One patch writes the key and the stamp that makes the item ours. */
function open(slot: Slot): void {
  const next = slot.remembering(slot.byOperator ? MEMORY.beating : MEMORY.none);
  next[slot.at + POD.key] = 1;
  next[slot.shellAt + SHELL.delivery] = DELIVERY.waiting;
  slot.tell(next, "session.open");
  const late = slot.fork();
  late[slot.at + POD.lateKey] = slot.known;
  if (slot.isShell) slot.tell(late, "session.open", { outcome: "lost", fault: true });
  slot.tell(crash(slot.moment, late, slot.operator), "session.open", { outcome: "crash, under way", fault: true });
}

/** The repeat is accepted, or a 412 shows a value that may be any client's. */
function settleFirstBeat(slot: Slot): void {
  const isAdopted = !slot.rules.adoptStill && slot.state === STATE.active;
  const isOurs = slot.holder === holderOfOperator(slot.operator);
  slot.tell(
    slot.remembering(isAdopted ? MEMORY.leased : MEMORY.acked),
    isAdopted ? "session.take" : "operator.forget",
    { breaks: isAdopted && !isOurs ? ADOPTS : null },
  );
}

const ADOPTS = "S2 adopts another client's lease";

/** lease: Operator, opened: the operator keeps the lease, or adopts it again after a restart. */
export function keepSteps(slot: Slot): void {
  const { memory, state, moment, rules } = slot;
  // Leases are adopted only while the container runs or waits. An ended one is settled.
  const isWatched = (slot.body === BODY.parked || slot.body === BODY.running) && slot.object && !slot.isRerun;
  if (memory === MEMORY.none && isWatched && state === STATE.active) takeUp(slot);
  if (memory === MEMORY.none && isWatched && state === STATE.queued && rules.inHand === "stop") {
    slot.tell(slot.remembering(MEMORY.lost), "session.lose");
  }
  if ((memory === MEMORY.snapshot || memory === MEMORY.outdated) && isWatched) compare(slot);
  if (
    memory === MEMORY.snapshot &&
    isWatched &&
    state === STATE.active &&
    !isBeaten(moment, slot.item, slot.operator)
  ) {
    take(slot);
  }
  if (memory === MEMORY.none && isWatched && state === STATE.stopping && rules.inHand === "stop") take(slot);
  if (memory === MEMORY.beating && state === STATE.active) {
    const next = slot.remembering(MEMORY.echoLost);
    moveHeartbeat(moment, next, slot.item);
    slot.tell(next, "session.beat", { outcome: "unanswered", fault: true });
  }
  if (memory === MEMORY.beating) beatOn(slot);
  // A 412 that arrived before the old lease can have lapsed.
  if (memory === MEMORY.echoLost) slot.tell(slot.remembering(MEMORY.beating), "session.beat");
  if (
    isWatched &&
    (memory === MEMORY.lost || memory === MEMORY.silent || state === STATE.stopping || slot.isOutOfHands)
  ) {
    const keeps =
      memory === MEMORY.lost || memory === MEMORY.silent || (memory === MEMORY.beating && rules.inHand === "stop");
    const next = slot.remembering(keeps ? memory : MEMORY.none);
    deletePod(moment, next, slot.pod);
    tellDeletion(slot, next);
  }
}

/** After a restart, the operator may continue from the listed value only if it does not change. */
function takeUp(slot: Slot): void {
  const isOurs = slot.holder === holderOfOperator(slot.operator);
  if (!slot.isSameStamp) slot.tell(slot.remembering(MEMORY.lost), "session.lose");
  else if (slot.rules.adoptStill) slot.tell(slot.remembering(MEMORY.snapshot), "session.snapshot");
  else slot.tell(slot.remembering(MEMORY.beating), "session.take", { breaks: isOurs ? null : ADOPTS });
}

function compare(slot: Slot): void {
  if (slot.state !== STATE.active) slot.tell(slot.remembering(MEMORY.none), "operator.forget");
  else if (slot.memory === MEMORY.outdated) slot.tell(slot.remembering(MEMORY.lost), "session.lose");
}

/** A heartbeat with the value that did not change. */
function take(slot: Slot): void {
  const next = slot.held();
  next[slot.at + POD.memory] = MEMORY.beating;
  moveHeartbeat(slot.moment, next, slot.item);
  slot.tell(next, "session.take");
  if (slot.rules.inHand === "fence") return;
  // Starts again by reading the list.
  next[slot.at + POD.memory] = MEMORY.none;
  slot.tell(next, "session.take", { outcome: "unanswered", fault: true });
}

/** A regular heartbeat: it changes the value to one that no other client remembers. */
function beatOn(slot: Slot): void {
  if (slot.rules.inHand === "fence") return;
  const next = slot.fork();
  moveHeartbeat(slot.moment, next, slot.item);
  slot.tell(next, "session.beat");
}

/** lease: Operator: no answer for a whole TTL. The server may still consider the lease valid. */
export function silenceSteps(slot: Slot): void {
  const { memory, rules } = slot;
  const isKept = memory === MEMORY.leased || memory === MEMORY.beating || memory === MEMORY.echoLost;
  if (isKept && rules.silence !== "never") slot.tell(slot.remembering(MEMORY.silent), "fault.silence", { fault: true });
}

/** A lost lease: the item belongs to another client, or is back in the queue. */
export function lostSteps(slot: Slot): void {
  const isDone = !slot.object || !slot.hasKey || slot.body === BODY.ended || slot.isRerun;
  if (slot.memory === MEMORY.lost && isDone) settled(slot);
}

/**
 * lease: Worker, while its container runs. Near its end the operator reads the heartbeat twice: one that changed in
 * between is the container's own. The Pod of a container that overstays is deleted, so its program gets SIGTERM.
 */
export function watchSteps(slot: Slot): void {
  const { memory, state, body, rules, object, isSameStamp, moment } = slot;
  // A heartbeat may have been taken for that of a program whose shell still waits.
  const isSeenRunning = isAlive(body) || (slot.isShell && body === BODY.parked && !slot.isUnstarted);
  if (!slot.hasKey || !object || !isSeenRunning || slot.isRerun) return;
  const isKnown = memory === MEMORY.none || memory === MEMORY.outdated || memory === MEMORY.snapshot;
  if (rules.graceful === "moved" && state === STATE.active && isSameStamp && isKnown) {
    slot.tell(slot.remembering(MEMORY.snapshot), "session.snapshot");
  }
  const isOthers = state === STATE.stopping || slot.isOutOfHands || !isSameStamp;
  if (rules.overstay === "stays" || !isOthers) return;
  const next = slot.fork();
  removePod(moment, next, slot.pod);
  tellDeletion(slot, next);
}

/**
 * The session's time has ended: the operator tells it to stop while its lease is certainly ours. A session that does
 * not start in time is abandoned.
 */
export function overdueSteps(slot: Slot): void {
  const { rules, memory, body, state } = slot;
  if (!slot.hasKey) return;
  const isHeld = slot.byOperator
    ? memory === MEMORY.beating
    : { moved: memory === MEMORY.outdated, holding: body === BODY.holding, any: true }[rules.graceful];
  const isUnended = state === STATE.starting || state === STATE.active;
  if (slot.object && isAlive(body) && isUnended && isHeld && slot.isSameStamp) {
    const next = slot.fork();
    const breaks = stopItem(slot.moment, next, slot.item, slot.operator, false);
    slot.tell(next, "session.stop", { breaks, graceful: true });
  }
  if (slot.isUnstarted || (slot.isParked && !slot.isShell)) {
    const next = slot.fork();
    removePod(slot.moment, next, slot.pod);
    tellDeletion(slot, next);
  }
}
