import { removePod, setObject } from "./effects.ts";
import type { Moment } from "./moment.ts";
import { changePod, deletingTurn } from "./sleeping.ts";
import { Slot } from "./slot.ts";
import {
  BODY,
  endedOfMark,
  isAlive,
  OBJECT,
  PAST,
  PHASE,
  POD,
  SHELL,
  SLEEP,
  type State,
  sessionOfMark,
  TURN,
} from "./state.ts";

// Sessions that sleep in their Pod: what the kubelet, faults and late requests do to it.

/** Steps of no operator, for one turn; those of its Pod come with its first turn. */
export function turnNodeSteps(moment: Moment, pod: number): void {
  rerunStep(moment, pod);
  if (moment.layout.turnOf(pod) > 1) return;
  lossSteps(moment, pod);
  const slot = new Slot(moment, pod);
  lateMarkStep(slot, SLEEP.lateTouch, "network.late-touch", PHASE.assigned);
  lateMarkStep(slot, SLEEP.lateSleep, "network.late-sleep", PHASE.sleeping);
  lateDeleteStep(slot);
  lateLockStep(slot);
}

/** The kubelet lost the record of a container that ended, and runs it again. It waits in its shell. */
function rerunStep(moment: Moment, pod: number): void {
  const { layout, rules } = moment;
  const [at, pastAt] = [layout.pod(pod), layout.turn(pod) + TURN.past];
  const past = moment.byte(pastAt);
  const mayRun = moment.byte(at + POD.body) === BODY.ended && moment.byte(at + POD.object) === OBJECT.exists;
  if (!rules.reruns || !mayRun || past & PAST.reran) return;
  const next = moment.fork();
  next[at + POD.body] = BODY.parked;
  next[pastAt] = past | PAST.reran | (moment.byte(at + POD.record) ? PAST.reranInClaim : 0);
  moment.hidden(next, "fault.rerun", { pod, fault: true });
}

/** A user deletes the Pod, or its node is lost. */
function lossSteps(moment: Moment, pod: number): void {
  const { layout } = moment;
  if (!moment.byte(layout.pod(pod) + POD.object)) return;
  const next = moment.fork();
  setObject(layout, next, pod, OBJECT.none);
  const bodies = layout.turnsOf(pod).map((turn) => moment.byte(layout.pod(turn) + POD.body));
  const lines = layout.turnsOf(pod).some((turn) => moment.byte(layout.shell(turn) + SHELL.lines));
  const mayRun = bodies.some(isAlive) || lines;
  moment.hidden(next, mayRun ? "fault.lose-node" : "fault.delete-pod", { pod, fault: true });
  if (!lines) return;
  const terminating = moment.fork();
  setObject(layout, terminating, pod, OBJECT.terminating);
  moment.hidden(terminating, "fault.delete-pod", { pod, fault: true });
}

/** A patch that marks the Pod takes effect or is lost. */
function lateMarkStep(
  slot: Slot,
  byte: number,
  name: "network.late-touch" | "network.late-sleep",
  phase: number,
): void {
  const value = slot.moment.byte(slot.sleepAt + byte);
  if (!value) return;
  const step = (next: State) => {
    next[slot.sleepAt + byte] = 0;
    slot.moment.hidden(next, name, { pod: slot.pod });
  };
  step(slot.fork());
  const next = slot.fork();
  next[slot.sleepAt + SLEEP.phase] = phase;
  next[slot.sleepAt + SLEEP.session] = byte === SLEEP.lateTouch ? value : sessionOfMark(value);
  if (byte === SLEEP.lateSleep) next[slot.sleepAt + SLEEP.ended] = endedOfMark(value);
  changePod(slot, next);
  step(next);
}

function lateDeleteStep(slot: Slot): void {
  const { moment, pod } = slot;
  const value = moment.byte(slot.sleepAt + SLEEP.lateDelete);
  if (!value) return;
  const lost = slot.fork();
  lost[slot.sleepAt + SLEEP.lateDelete] = 0;
  moment.hidden(lost, "network.late-delete", { pod });
  if (!slot.object) return;
  const next = slot.fork();
  removePod(moment, next, pod);
  next[slot.sleepAt + SLEEP.lateDelete] = 0;
  moment.hidden(next, "network.late-delete", { pod, breaks: deleteBreaks(slot, value) });
}

/** What the deletion of a Pod breaks whose session could have stayed in it. */
function deleteBreaks({ moment, sleepAt, pod, ended }: Slot, lateDelete: number): string | null {
  const { layout } = moment;
  const turn = deletingTurn(lateDelete);
  if (turn !== null) {
    const isEarlier = moment.byte(sleepAt + SLEEP.files) !== 0 && ended >= turn;
    return isEarlier ? "S12 a late delete of an earlier turn hits a session's Pod" : null;
  }
  const isClaimed = layout.turnsOf(pod).some((each) => {
    const at = layout.pod(each);
    const isOpen = layout.turnOf(each) > ended && moment.byte(at + POD.record) > 0;
    return isAlive(moment.byte(at + POD.body)) || (isOpen && moment.byte(at + POD.ours) === 1);
  });
  return isClaimed ? "S12 a removal deletes a Pod whose session was woken" : null;
}

/** The Secret that locks a turn is created late, unless its name is taken. */
function lateLockStep(slot: Slot): void {
  const { moment, pod } = slot;
  const turn = moment.byte(slot.sleepAt + SLEEP.lateLock);
  if (!turn) return;
  const locked = pod + turn - 1;
  const isTaken = moment.byte(moment.layout.pod(locked) + POD.record) > 0;
  const next = slot.fork();
  next[slot.sleepAt + SLEEP.lateLock] = 0;
  moment.hidden(next, "network.late-lock", { pod });
  if (isTaken) return;
  next[moment.layout.turn(locked) + TURN.lock] = 1;
  moment.hidden(next, "network.late-lock", { pod });
}
