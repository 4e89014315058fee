import { holdsLease } from "./effects.ts";
import { isToOpen } from "./keeping.ts";
import { lineBreaks, sendLine, startProgram } from "./lines.ts";
import { BODY, DELIVERY, isAlive, MEMORY, SHELL, STATE } from "./state.ts";
import type { Turn } from "./turn.ts";

// `parking: Shell`, step 5 (open): the Pod is marked as assigned, and its shell is given its line.

/** Steps of a claim that is being opened or was opened. Whether its shell still waits is not visible. */
export function deliverSteps(turn: Turn): void {
  const { body, object, isTerminating } = turn;
  if (!object || isTerminating || (body !== BODY.parked && !isAlive(body))) return;
  if (!turn.isAssigned && (turn.hasKey || isToOpen(turn))) touch(turn);
  if (mayDeliver(turn)) deliver(turn);
  if (turn.hasKey && turn.delivery !== DELIVERY.started) learn(turn);
}

/** Sent together with the opening. Either may land first. */
function touch(turn: Turn): void {
  const next = turn.fork();
  next[turn.shellAt + SHELL.assigned] = 1;
  turn.tell(next, "session.touch");
  const late = turn.fork();
  late[turn.shellAt + SHELL.lateTouch] = 1;
  turn.tell(late, "session.touch", { outcome: "lost", fault: true });
}

function mayDeliver(turn: Turn): boolean {
  const { rules, hasKey, delivery, memory, byOperator } = turn;
  const isEarly = !hasKey && rules.line === "before-opened" && isToOpen(turn);
  if (!isEarly && !hasKey) return false;
  if (!turn.isAssigned && rules.line !== "before-assigned") return false;
  const isBlind = rules.redelivery === "blind" && hasKey && delivery === DELIVERY.unknown;
  if (!isEarly && !isBlind && delivery !== DELIVERY.waiting) return false;
  if (byOperator && rules.lineLease && !holdsLease(memory)) return false;
  return isBlind || isOurs(turn);
}

/** What a look at the item shows: it is ours, and, with lease: Worker, has no heartbeat. */
function isOurs({ state, byOperator, isSameStamp }: Turn): boolean {
  return isSameStamp && (state === STATE.starting || (byOperator && state === STATE.active));
}

function deliver(turn: Turn): void {
  const { moment, pod, item, memory, rules } = turn;
  if (turn.body !== BODY.parked) {
    // The program's standard input is /dev/null: there is no second marker.
    turn.tell(turn.knowing(DELIVERY.unknown), "session.deliver", { outcome: "lost" });
    return;
  }
  const breaks = lineBreaks(moment, pod, item);
  const started = turn.knowing(DELIVERY.started);
  const startBreaks = startProgram(moment, started, pod, item);
  turn.tell(started, "session.deliver", { breaks: breaks ?? startBreaks });
  const next = turn.knowing(DELIVERY.unknown);
  next[turn.shellAt + SHELL.sent] = 1;
  turn.tell(next, "session.deliver", { outcome: "lost", fault: true, breaks });
  const isBounded = rules.lateLine === "in-its-lease" && holdsLease(memory);
  sendLine(moment, next, pod, item, isBounded);
  turn.tell(next, "session.deliver", { outcome: "unanswered", fault: true, breaks });
}

/** Whether the program started: by the container's log, or, lease: Worker, by the item's heartbeats. */
function learn(turn: Turn): void {
  const { body, state, byOperator, memory, rules } = turn;
  const isStarted = body !== BODY.parked;
  turn.tell(turn.knowing(isStarted ? DELIVERY.started : DELIVERY.waiting), "session.read-log");
  // Without its log, the line is sent again.
  turn.tell(turn.knowing(DELIVERY.waiting), "session.read-log", { outcome: "lost", fault: true });
  const isBeaten = !byOperator && state === STATE.active && turn.isSameStamp && memory !== MEMORY.fenced;
  if (isBeaten || rules.start === "assumed") {
    turn.tell(turn.knowing(DELIVERY.started), "session.delivered");
  }
}
