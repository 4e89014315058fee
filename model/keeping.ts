import { crash, deletePod, isBeaten, moveHeartbeat, removePod, stopItem } from "./effects.ts";
import { firstBeat } from "./first-beat.ts";
import { settled } from "./settling.ts";
import { BODY, DELIVERY, holderOfOperator, isAlive, MEMORY, POD, SHELL, STATE } from "./state.ts";
import type { Turn } from "./turn.ts";

// Steps 5 (open) and 6 (watch).

/** Steps of a claim that is ours and whose container has no key yet. */
export function openSteps(turn: Turn): void {
  const { memory, state, byOperator } = turn;
  const mayOpen = turn.isParked && !turn.isDeleted && !turn.hasKey;
  if (memory === MEMORY.leased) beatOn(turn);
  if (isToOpen(turn)) open(turn);
  else if (mayOpen && memory === MEMORY.acked && state === STATE.starting && !turn.holder && byOperator) {
    firstBeat(turn, "session.take", MEMORY.leased);
    turn.tell(turn.remembering(MEMORY.firstLost), "session.take", { outcome: "lost", fault: true });
  }
  if (memory === MEMORY.leased && !mayOpen && turn.rules.inHand === "fence") {
    turn.tell(turn.remembering(MEMORY.acked), "operator.forget");
  }
  if (memory === MEMORY.firstLost) settleFirstBeat(turn);
  // An opening without an answer took effect after all.
  if (turn.isShell && turn.hasKey && (memory === MEMORY.leased || memory === MEMORY.acked)) {
    turn.tell(turn.remembering(memory === MEMORY.leased ? MEMORY.beating : MEMORY.none), "operator.forget");
  }
}

/** Whether the claim is ready to be opened. */
export function isToOpen(turn: Turn): boolean {
  const { memory, state } = turn;
  if (!turn.isParked || turn.isDeleted || turn.hasKey) return false;
  const isUnended = state === STATE.starting || state === STATE.active;
  return memory === MEMORY.leased || (memory === MEMORY.acked && !turn.byOperator && isUnended);
}

/** One patch writes the key and the stamp that makes the item ours. */
function open(turn: Turn): void {
  const next = turn.remembering(turn.byOperator ? MEMORY.beating : MEMORY.none);
  next[turn.at + POD.key] = 1;
  next[turn.shellAt + SHELL.delivery] = DELIVERY.waiting;
  turn.tell(next, "session.open");
  const late = turn.fork();
  late[turn.at + POD.lateKey] = turn.known;
  if (turn.isShell) turn.tell(late, "session.open", { outcome: "lost", fault: true });
  turn.tell(crash(turn.moment, late, turn.operator), "session.open", { outcome: "crash, under way", fault: true });
}

/** The repeat is accepted, or a 412 shows a value that may be any client's. */
function settleFirstBeat(turn: Turn): void {
  const isAdopted = !turn.rules.adoptStill && turn.state === STATE.active;
  const isOurs = turn.holder === holderOfOperator(turn.operator);
  turn.tell(
    turn.remembering(isAdopted ? MEMORY.leased : MEMORY.acked),
    isAdopted ? "session.take" : "operator.forget",
    { breaks: isAdopted && !isOurs ? ADOPTS : null },
  );
}

const ADOPTS = "S2 adopts a lease of somebody else's";

/** lease: Operator, opened: the operator keeps the lease, or adopts it again after a restart. */
export function keepSteps(turn: Turn): void {
  const { memory, state, moment, rules } = turn;
  // Leases are adopted only while the container runs or waits. An ended one is settled.
  const isWatched = (turn.body === BODY.parked || turn.body === BODY.running) && turn.object;
  if (memory === MEMORY.none && isWatched && state === STATE.active) takeUp(turn);
  if (memory === MEMORY.none && isWatched && state === STATE.queued && rules.inHand === "stop") {
    turn.tell(turn.remembering(MEMORY.lost), "session.lose");
  }
  if ((memory === MEMORY.snapshot || memory === MEMORY.outdated) && isWatched) compare(turn);
  if (
    memory === MEMORY.snapshot &&
    isWatched &&
    state === STATE.active &&
    !isBeaten(moment, turn.item, turn.operator)
  ) {
    take(turn);
  }
  if (memory === MEMORY.none && isWatched && state === STATE.stopping && rules.inHand === "stop") take(turn);
  if (memory === MEMORY.beating && state === STATE.active) {
    const next = turn.remembering(MEMORY.echoLost);
    moveHeartbeat(moment, next, turn.item);
    turn.tell(next, "session.beat", { outcome: "unanswered", fault: true });
  }
  if (memory === MEMORY.beating) beatOn(turn);
  // A 412 that arrived before the old lease can have lapsed.
  if (memory === MEMORY.echoLost) turn.tell(turn.remembering(MEMORY.beating), "session.beat");
  if (
    isWatched &&
    (memory === MEMORY.lost || memory === MEMORY.silent || state === STATE.stopping || turn.isOutOfHands)
  ) {
    const keeps =
      memory === MEMORY.lost || memory === MEMORY.silent || (memory === MEMORY.beating && rules.inHand === "stop");
    const next = turn.remembering(keeps ? memory : MEMORY.none);
    deletePod(moment, next, turn.pod);
    turn.tell(next, "session.delete-pod");
  }
}

/** After a restart, the operator may continue from the listed value only if it does not change. */
function takeUp(turn: Turn): void {
  const isOurs = turn.holder === holderOfOperator(turn.operator);
  if (!turn.isSameStamp) turn.tell(turn.remembering(MEMORY.lost), "session.lose");
  else if (turn.rules.adoptStill) turn.tell(turn.remembering(MEMORY.snapshot), "session.snapshot");
  else turn.tell(turn.remembering(MEMORY.beating), "session.take", { breaks: isOurs ? null : ADOPTS });
}

function compare(turn: Turn): void {
  if (turn.state !== STATE.active) turn.tell(turn.remembering(MEMORY.none), "operator.forget");
  else if (turn.memory === MEMORY.outdated) turn.tell(turn.remembering(MEMORY.lost), "session.lose");
}

/** A heartbeat with the value that did not change. */
function take(turn: Turn): void {
  const next = turn.held();
  next[turn.at + POD.memory] = MEMORY.beating;
  moveHeartbeat(turn.moment, next, turn.item);
  turn.tell(next, "session.take");
  if (turn.rules.inHand === "fence") return;
  // Starts again by reading the list.
  next[turn.at + POD.memory] = MEMORY.none;
  turn.tell(next, "session.take", { outcome: "unanswered", fault: true });
}

/** A regular heartbeat: it changes the value to one that no other client remembers. */
function beatOn(turn: Turn): void {
  if (turn.rules.inHand === "fence") return;
  const next = turn.fork();
  moveHeartbeat(turn.moment, next, turn.item);
  turn.tell(next, "session.beat");
}

/** lease: Operator: no answer for a whole TTL. The server may still consider the lease valid. */
export function silenceSteps(turn: Turn): void {
  const { memory, rules } = turn;
  const isKept = memory === MEMORY.leased || memory === MEMORY.beating || memory === MEMORY.echoLost;
  if (isKept && rules.silence !== "never") turn.tell(turn.remembering(MEMORY.silent), "fault.silence", { fault: true });
}

/** A lost lease: the item belongs to another client, or is back in the queue. */
export function lostSteps(turn: Turn): void {
  const isDone = !turn.object || !turn.hasKey || turn.body === BODY.ended;
  if (turn.memory === MEMORY.lost && isDone) settled(turn);
}

/**
 * lease: Worker, while its container runs. Near its end the operator reads the heartbeat twice: one that changed in
 * between is the container's own. The Pod of a container that overstays is deleted, so its program gets SIGTERM.
 */
export function watchSteps(turn: Turn): void {
  const { memory, state, body, rules, object, isSameStamp, moment } = turn;
  // A heartbeat may have been taken for that of a program whose shell still waits.
  const isSeenRunning = isAlive(body) || (turn.isShell && body === BODY.parked && !turn.isUnstarted);
  if (!turn.hasKey || !object || !isSeenRunning) return;
  const isKnown = memory === MEMORY.none || memory === MEMORY.outdated || memory === MEMORY.snapshot;
  if (rules.graceful === "moved" && state === STATE.active && isSameStamp && isKnown) {
    turn.tell(turn.remembering(MEMORY.snapshot), "session.snapshot");
  }
  const isOthers = state === STATE.stopping || turn.isOutOfHands || !isSameStamp;
  if (rules.overstay === "stays" || !isOthers) return;
  const next = turn.fork();
  removePod(moment, next, turn.pod);
  turn.tell(next, "session.delete-pod");
}

/**
 * The session's time is over: the operator tells it to stop while its lease is certainly ours. A session that does not
 * start in time is abandoned.
 */
export function overdueSteps(turn: Turn): void {
  const { rules, memory, body, state } = turn;
  if (!turn.hasKey) return;
  const isHeld = turn.byOperator
    ? memory === MEMORY.beating
    : { moved: memory === MEMORY.outdated, holding: body === BODY.holding, any: true }[rules.graceful];
  const isUnended = state === STATE.starting || state === STATE.active;
  if (turn.object && isAlive(body) && isUnended && isHeld && turn.isSameStamp) {
    const next = turn.fork();
    const breaks = stopItem(turn.moment, next, turn.item, turn.operator, false);
    turn.tell(next, "session.stop", { breaks, graceful: true });
  }
  if (turn.isUnstarted || (turn.isParked && !turn.isShell)) {
    const next = turn.fork();
    removePod(turn.moment, next, turn.pod);
    turn.tell(next, "session.delete-pod");
  }
}
