import { holdsLease } from "./effects.ts";
import { isToOpen } from "./keeping.ts";
import { lineBreaks, sendLine, startProgram } from "./lines.ts";
import { assign } from "./sleeping.ts";
import type { Slot } from "./slot.ts";
import { BODY, DELIVERY, isAlive, MEMORY, SHELL, SLEEP, STATE } from "./state.ts";

// `parking: Shell`, step 5 (open): the Pod is marked as assigned, and its shell is given its line.

/** Steps of a claim that is being opened or was opened. Whether its shell still waits is not visible. */
export function deliverSteps(slot: Slot): void {
  const { body, object, isTerminating } = slot;
  if (!object || isTerminating || slot.isRerun || (body !== BODY.parked && !isAlive(body))) return;
  if (!isMarked(slot) && (slot.hasKey || (isToOpen(slot) && !slot.isWoken))) touch(slot);
  if (mayDeliver(slot)) deliver(slot);
  if (slot.hasKey && slot.delivery !== DELIVERY.started) learn(slot);
}

/** Whether the Pod is marked as assigned, to the item's session. */
function isMarked({ isAssigned, hasTurns, moment, sleepAt, item }: Slot): boolean {
  return isAssigned && (!hasTurns || moment.byte(sleepAt + SLEEP.session) === moment.layout.sessionOf(item));
}

/** Sent together with the opening, and either may land first; for a woken Pod, at any time after the opening. */
function touch(slot: Slot): void {
  if (slot.hasTurns) {
    assign(slot);
    return;
  }
  const next = slot.fork();
  next[slot.shellAt + SHELL.assigned] = 1;
  slot.tell(next, "session.touch");
  const late = slot.fork();
  late[slot.shellAt + SHELL.lateTouch] = 1;
  slot.tell(late, "session.touch", { outcome: "lost", fault: true });
}

function mayDeliver(slot: Slot): boolean {
  const { rules, hasKey, delivery, memory, byOperator } = slot;
  const isEarly = !hasKey && rules.line === "before-opened" && isToOpen(slot);
  if (!isEarly && !hasKey) return false;
  if (!isMarked(slot) && !slot.isWoken && rules.line !== "before-assigned") return false;
  const isBlind = rules.redelivery === "blind" && hasKey && delivery === DELIVERY.unknown;
  if (!isEarly && !isBlind && delivery !== DELIVERY.waiting) return false;
  if (byOperator && rules.lineLease && !holdsLease(memory)) return false;
  return isBlind || isOurs(slot);
}

/** What a look at the item shows: it is ours, and, with lease: Worker, has no heartbeat. */
function isOurs({ state, byOperator, isSameStamp }: Slot): boolean {
  return isSameStamp && (state === STATE.starting || (byOperator && state === STATE.active));
}

function deliver(slot: Slot): void {
  const { moment, pod, item, memory, rules } = slot;
  if (slot.body !== BODY.parked) {
    // The program's standard input is /dev/null: there is no second marker.
    slot.tell(slot.knowing(DELIVERY.unknown), "session.deliver", { outcome: "lost" });
    return;
  }
  const breaks = lineBreaks(moment, pod, item);
  const started = slot.knowing(DELIVERY.started);
  const startBreaks = startProgram(moment, started, pod, item);
  slot.tell(started, "session.deliver", { breaks: breaks ?? startBreaks });
  const next = slot.knowing(DELIVERY.unknown);
  next[slot.shellAt + SHELL.sent] = 1;
  slot.tell(next, "session.deliver", { outcome: "lost", fault: true, breaks });
  const isBounded = rules.lateLine === "in-its-lease" && holdsLease(memory);
  sendLine(moment, next, pod, item, isBounded);
  slot.tell(next, "session.deliver", { outcome: "unanswered", fault: true, breaks });
}

/** Whether the program started: by the container's log, or, lease: Worker, by the item's heartbeats. */
function learn(slot: Slot): void {
  const { body, state, byOperator, memory, rules } = slot;
  const isStarted = body !== BODY.parked;
  slot.tell(slot.knowing(isStarted ? DELIVERY.started : DELIVERY.waiting), "session.read-log");
  // Without its log, the line is sent again.
  slot.tell(slot.knowing(DELIVERY.waiting), "session.read-log", { outcome: "lost", fault: true });
  const isBeaten = !byOperator && state === STATE.active && slot.isSameStamp && memory !== MEMORY.fenced;
  if (isBeaten || rules.start === "assumed") {
    slot.tell(slot.knowing(DELIVERY.started), "session.delivered");
  }
}
