import type { Moment } from "./moment.ts";
import type { Rules } from "./rules.ts";
import { BODY, holderOfOperator, ITEM, isAlive, PAST, POD, SHELL, SLEEP, STATE, type State, TURN } from "./state.ts";
import { useVolume } from "./volume.ts";

// The starts of programs, and `parking: Shell`: the lines that start them.

/** The most items of a state: each has a bit for its lines. */
const MOST_ITEMS = 8;

/** With `lateLine: in-its-lease`, lines that end with the lease of their sender have their own bits: half of all. */
const boundedShift = ({ lateLine }: Rules): number => (lateLine === "in-its-lease" ? MOST_ITEMS / 2 : MOST_ITEMS);

/** A line for the item is on its way to the Pod. `bounded`: it arrives before the lease lapses, or never. */
export function sendLine(moment: Moment, next: State, pod: number, item: number, bounded: boolean): void {
  const at = moment.layout.shell(pod) + SHELL.lines;
  next[at] = (next[at] ?? 0) | (1 << (bounded ? item + boundedShift(moment.rules) : item));
}

/** The lease of an item ends, and with it the lines that are bounded by it. */
export function endBoundedLines(moment: Moment, next: State, item: number): void {
  const { layout } = moment;
  if (!layout.isShell) return;
  for (let pod = 0; pod < layout.pods; pod += 1) {
    const at = layout.shell(pod) + SHELL.lines;
    next[at] = (next[at] ?? 0) & ~(1 << (item + boundedShift(moment.rules)));
  }
}

/** Whether a line for the item may still reach the waiting shell. */
export function isLineUnderWay(moment: Moment, pod: number, item: number): boolean {
  const lines = moment.byte(moment.layout.shell(pod) + SHELL.lines);
  return (lines & ((1 << item) | (1 << (item + boundedShift(moment.rules))))) !== 0;
}

/** Whether lines for other items than the one recorded may still reach the waiting shell. */
export function hasLineOfOthers(rules: Rules, lines: number, record: number): boolean {
  const shift = boundedShift(rules);
  const items = lines | (lines >> shift);
  return (items & ((1 << shift) - 1) & ~(1 << (record - 1))) !== 0;
}

/** The container's program starts for an item. Returns the property that this breaks. */
export function startProgram(moment: Moment, next: State, pod: number, item: number): string | null {
  const at = moment.layout.pod(pod);
  next[at + POD.body] = BODY.running;
  next[at + POD.serves] = item + 1;
  const volumeBreaks = useVolume(moment, next, pod, moment.layout.sessionOf(item));
  const breaks = turnBreaks(moment, pod, item) ?? volumeBreaks ?? startBreaks(moment, pod, item);
  const past = moment.layout.turn(pod) + TURN.past;
  next[past] = (next[past] ?? 0) | PAST.ran;
  const files = moment.layout.sleep(pod) + SLEEP.files;
  if (!next[files]) next[files] = moment.layout.sessionOf(item);
  return breaks;
}

/** What the start of a turn's program breaks. */
function turnBreaks(moment: Moment, pod: number, item: number): string | null {
  const { layout } = moment;
  if (!layout.hasTurns) return null;
  if (moment.byte(layout.turn(pod) + TURN.past) & PAST.ran) return "S9 the program of a turn starts twice";
  const isShared = layout.turnsOf(pod).some((turn) => isAlive(moment.byte(layout.pod(turn) + POD.body)));
  if (isShared) return "S9 two turns of a Pod run at the same time";
  const files = moment.byte(layout.sleep(pod) + SLEEP.files);
  return files && files !== layout.sessionOf(item) ? "S10 a Pod with the files of a session runs another one" : null;
}

function startBreaks(moment: Moment, pod: number, item: number): string | null {
  const { layout, rules } = moment;
  const at = layout.pod(pod);
  const record = moment.byte(at + POD.record);
  if (record && record !== item + 1) return "S6 a line starts the program of another session";
  // Without a Secret, nothing tells whether there was an acknowledgement.
  if (record && !moment.byte(at + POD.ours))
    return "S4 a container starts for an item that its operator never acknowledged";
  if (rules.lease === "Worker") return null;
  const isBounded = layout.isShell && rules.lateLine === "in-its-lease" && moment.byte(at + POD.object) !== 0;
  if (!rules.strict && !isBounded) return null;
  const itemAt = layout.item(item);
  const isHeld = moment.byte(itemAt + ITEM.holder) === holderOfOperator(layout.operatorOf(pod));
  const isHarmless = layout.isShell && moment.byte(itemAt + ITEM.state) === STATE.stopped;
  return isHeld || isHarmless ? null : "S2o a container starts without its operator's lease";
}

/** The property that a line breaks for an item that its sender does not hold. */
export function lineBreaks(moment: Moment, pod: number, item: number): string | null {
  const { layout } = moment;
  if (moment.byte(layout.pod(pod) + POD.body) !== BODY.parked) return null;
  const at = layout.item(item);
  const state = moment.byte(at + ITEM.state);
  const isHeld = (moment.byte(at + ITEM.acked) & (1 << layout.operatorOf(pod))) !== 0;
  const isOver = state === STATE.queued || state === STATE.stopped;
  return isHeld && !isOver ? null : "S7 a line is sent for an item that its operator does not hold any more";
}

/** The property that the end of a claim breaks while its line can still start a program. */
export function endBreaks(moment: Moment, pod: number, item: number): string | null {
  const { layout, rules } = moment;
  const at = layout.pod(pod);
  const isWaiting = moment.byte(at + POD.body) === BODY.parked && (moment.byte(at + POD.object) !== 0 || rules.strict);
  const isBroken = layout.isShell && isWaiting && isLineUnderWay(moment, pod, item);
  return isBroken ? "S7 a claim is given up while its line can still start a program" : null;
}
