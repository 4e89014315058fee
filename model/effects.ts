import { endBoundedLines } from "./lines.ts";
import type { Moment } from "./moment.ts";
import {
  BODY,
  DELIVERY,
  holdingOperator,
  holdingPod,
  ITEM,
  isAlive,
  KNOWN,
  type Layout,
  MEMORY,
  OBJECT,
  OPERATOR,
  PAST,
  POD,
  POD_BYTES,
  SHELL,
  STATE,
  type State,
  TURN,
  VOLUME,
} from "./state.ts";

// Effects that several steps share. They change the next state in place.

/** The item's last heartbeat changed, so every remembered value is outdated. */
export function moveHeartbeat(moment: Moment, next: State, item: number): void {
  const { layout } = moment;
  for (let at = layout.podsAt; at < layout.operatorsAt; at += POD_BYTES) {
    if (next[at + POD.record] !== item + 1) continue;
    const memory = next[at + POD.memory];
    if (memory === MEMORY.snapshot) next[at + POD.memory] = MEMORY.outdated;
    else if (memory === MEMORY.doubtedSnapshot) next[at + POD.memory] = MEMORY.doubtedOutdated;
  }
}

/** Whether an operator with this memory holds the lease. */
export function holdsLease(memory: number): boolean {
  return memory === MEMORY.leased || memory === MEMORY.beating || memory === MEMORY.echoLost;
}

/** An item's lease ends. Operators judge clocks carefully enough to know it beforehand. */
export function lapse(moment: Moment, next: State, item: number, state: number): void {
  const { layout } = moment;
  next[layout.item(item) + ITEM.state] = state;
  next[layout.item(item) + ITEM.offer] = 0;
  moveHeartbeat(moment, next, item);
  endBoundedLines(moment, next, item);
  for (let at = layout.podsAt; at < layout.operatorsAt; at += POD_BYTES) {
    if (next[at + POD.record] !== item + 1) continue;
    const memory = next[at + POD.memory] ?? 0;
    if (holdsLease(memory) || memory === MEMORY.firstLost) next[at + POD.memory] = MEMORY.lost;
    else if (memory === MEMORY.fenced || memory === MEMORY.snapshot || memory === MEMORY.outdated) {
      next[at + POD.memory] = settledMemory(next, at);
    }
  }
}

/** What an operator knows of its own claim when it knows nothing about the lease. */
export function settledMemory(state: State, podAt: number): number {
  return state[podAt + POD.key] ? MEMORY.none : MEMORY.acked;
}

/** Deletes the Secret. The API server refuses a patch still in flight, because of its resourceVersion. */
export function dropRecord(moment: Moment, next: State, pod: number): void {
  const at = moment.layout.pod(pod);
  next.fill(0, at + POD.record, at + POD.lateKey);
  next[moment.layout.shell(pod) + SHELL.delivery] = DELIVERY.unknown;
  const past = moment.layout.turn(pod) + TURN.past;
  next[past] = (next[past] ?? 0) & ~PAST.reranInClaim;
  if (moment.rules.versions) next[at + POD.lateKey] = 0;
}

/** The container's program ends. */
export function endContainer(moment: Moment, next: State, pod: number): void {
  const at = moment.layout.pod(pod);
  const isKept = next[at + POD.object] === OBJECT.exists;
  next[at + POD.body] = isKept ? BODY.ended : BODY.gone;
  if (!isKept) endObject(moment, next, pod);
  // The rule compares with heartbeats after this moment.
  if (moment.rules.stop === "unbeaten-since-the-end" && next[at + POD.record]) next[at + POD.memory] = MEMORY.snapshot;
}

/** The object of a deleted Pod is gone once nothing of it runs or can still start. */
function endObject(moment: Moment, next: State, pod: number): void {
  const { layout } = moment;
  const turns = layout.turnsOf(pod);
  const isRunning = turns.some(
    (turn) => isAlive(next[layout.pod(turn) + POD.body] ?? 0) || mayStart(layout, next, turn),
  );
  const isLost = next[layout.pod(pod) + POD.object] === OBJECT.none;
  setObject(layout, next, pod, isRunning && !isLost ? OBJECT.terminating : OBJECT.none);
}

/** The object of a Pod, which its turns share. */
export function setObject(layout: Layout, next: State, pod: number, object: number): void {
  for (const turn of layout.turnsOf(pod)) next[layout.pod(turn) + POD.object] = object;
}

/** Whether a line is under way to the waiting shell. */
function mayStart(layout: Layout, state: State, pod: number): boolean {
  return state[layout.pod(pod) + POD.body] === BODY.parked && (state[layout.shell(pod) + SHELL.lines] ?? 0) !== 0;
}

/** Deletes a Pod with turns, all at once. */
function removeTurns(moment: Moment, next: State, pod: number): void {
  const { layout, rules } = moment;
  setObject(layout, next, pod, OBJECT.terminating);
  for (const turn of layout.turnsOf(pod)) {
    const at = layout.pod(turn) + POD.body;
    const isEnding = isAlive(next[at] ?? 0) && rules.lease === "Worker";
    if (isEnding) terminate(moment, next, turn);
    else if (!mayStart(layout, next, turn)) next[at] = BODY.gone;
  }
  endObject(moment, next, pod);
}

/** Deletes a Pod. lease: Worker: a running program gets SIGTERM, and the Pod exists until it has ended. */
export function removePod(moment: Moment, next: State, pod: number): void {
  if (moment.layout.hasTurns) {
    removeTurns(moment, next, pod);
    return;
  }
  const body = next[moment.layout.pod(pod) + POD.body] ?? 0;
  if (moment.rules.lease === "Worker" && isAlive(body)) terminate(moment, next, pod);
  else deletePod(moment, next, pod);
}

/** The Pod is gone. While a line is under way, its waiting shell may still read that before it ends. */
export function deletePod(moment: Moment, next: State, pod: number): void {
  if (moment.layout.hasTurns) {
    removeTurns(moment, next, pod);
    return;
  }
  const at = moment.layout.pod(pod);
  const isStarting = mayStart(moment.layout, next, pod);
  if (!isStarting) next[at + POD.body] = BODY.gone;
  next[at + POD.object] = isStarting ? OBJECT.terminating : OBJECT.none;
}

function terminate(moment: Moment, next: State, pod: number): void {
  const at = moment.layout.pod(pod);
  const body = next[at + POD.body] ?? 0;
  const unbeaten = moment.rules.sigterm ? BODY.terminated : BODY.leaving;
  next[at + POD.body] = body === BODY.holding ? BODY.finishing : body === BODY.running ? unbeaten : body;
  // It ignores SIGTERM, too: the grace period passes.
  if (moment.rules.worker === "stays" && body === BODY.leaving) endContainer(moment, next, pod);
}

/** A stop posted by one side takes effect. Returns the property that it breaks. */
export function stopItem(moment: Moment, next: State, item: number, operator: number, force: boolean): string | null {
  const at = moment.layout.item(item);
  const state = moment.byte(at + ITEM.state);
  const breaks = stopBreaks(moment, at, operator);
  if (state !== STATE.stopped) next[at + ITEM.state] = force ? STATE.stopped : STATE.stopping;
  if (force) moveHeartbeat(moment, next, item);
  return breaks;
}

function stopBreaks(moment: Moment, at: number, operator: number): string | null {
  const state = moment.byte(at + ITEM.state);
  if (state === STATE.queued) return "S3 a stop hits an item that is queued for others";
  if (state === STATE.stopped) return null;
  const holder = moment.byte(at + ITEM.holder);
  const others = moment.byte(at + ITEM.acked) & ~(1 << operator);
  const isOthers = holder ? moment.layout.sideOf(holder) !== operator : others !== 0;
  if (!isOthers) return null;
  if (state !== STATE.stopping) return "S3 a stop hits an item of another client";
  return moment.rules.strict ? "S3p a stop hits a stopping item of another client" : null;
}

/** The server handles an acknowledgement. Returns whether the answer is 2xx. */
export function acknowledge(moment: Moment, next: State, item: number, operator: number): boolean {
  const { layout, rules } = moment;
  const at = layout.item(item);
  const stamp = next[at + ITEM.stamp] ?? 0;
  const state = next[at + ITEM.state];
  if (state === STATE.queued && stamp < rules.acknowledgements) {
    next[at + ITEM.state] = STATE.starting;
    next[at + ITEM.offer] = 0;
    next[at + ITEM.stamp] = stamp + 1;
    next[at + ITEM.owner] = operator + 1;
    next[at + ITEM.acked] = 1 << operator;
    next[at + ITEM.holder] = 0;
  } else if (state !== STATE.queued && state !== STATE.stopped && rules.secondAck === "accepted") {
    next[at + ITEM.acked] = (next[at + ITEM.acked] ?? 0) | (1 << operator);
  } else {
    return false;
  }
  for (const pod of podsOf(moment, operator)) {
    if (next[layout.pod(pod) + POD.record] === item + 1) next[layout.pod(pod) + POD.ours] = 1;
  }
  return true;
}

/** Whether the container has ended, or its Pod is gone. */
function isOver(moment: Moment, pod: number): boolean {
  const at = moment.layout.pod(pod);
  const body = moment.byte(at + POD.body);
  return body === BODY.ended || body === BODY.gone || moment.byte(at + POD.object) === OBJECT.none;
}

/**
 * Whether a Secret records a claim whose container has not ended. In a container that has ended, a claim that was never
 * opened can't start any more.
 */
export function isClaimRunning(moment: Moment, pod: number): boolean {
  const at = moment.layout.pod(pod);
  return moment.byte(at + POD.record) > 0 && !isOver(moment, pod);
}

export function* podsOf(moment: Moment, operator: number): Generator<number> {
  const pods = moment.rules.pods * moment.rules.turns;
  for (let pod = operator * pods; pod < (operator + 1) * pods; pod += 1) yield pod;
}

/** The operator's process ends and loses its memory. */
export function crash(moment: Moment, next: State, operator: number): State {
  const { layout } = moment;
  next[layout.operator(operator) + OPERATOR.up] = 0;
  for (const volume of layout.volumesOf(operator)) next[layout.volume(volume) + VOLUME.known] = KNOWN.nothing;
  for (const pod of podsOf(moment, operator)) {
    const at = layout.pod(pod);
    next[at + POD.memory] = MEMORY.none;
    if (!next[at + POD.key]) next[at + POD.known] = 0;
    const delivery = layout.shell(pod) + SHELL.delivery;
    if (moment.rules.leadership === "unchecked" && next[delivery] === DELIVERY.waiting) {
      next[layout.shell(pod) + SHELL.stale] = next[at + POD.record] ?? 0;
    }
    next[delivery] = DELIVERY.unknown;
  }
  return next;
}

/** Whether another holder than this operator is alive, which then sends a heartbeat within an interval. */
export function isBeaten(moment: Moment, item: number, operator: number): boolean {
  const { layout } = moment;
  const holder = moment.byte(layout.item(item) + ITEM.holder);
  const other = holdingOperator(holder);
  if (other !== null) return other !== operator && moment.byte(layout.operator(other) + OPERATOR.up) === 1;
  const pod = holdingPod(holder);
  const body = pod === null ? BODY.gone : moment.byte(layout.pod(pod) + POD.body);
  return body === BODY.holding || body === BODY.finishing;
}

/** Whether the holder of a lease is alive, so that only a fault can let the lease lapse. */
export function isHeldAlive(moment: Moment, item: number): boolean {
  const { layout, rules } = moment;
  const holder = moment.byte(layout.item(item) + ITEM.holder);
  const pod = holdingPod(holder);
  if (pod !== null) {
    const body = moment.byte(layout.pod(pod) + POD.body);
    // A worker that stays after losing its lease sends no more heartbeats.
    return isAlive(body) && !(rules.worker === "stays" && body === BODY.leaving);
  }
  const operator = holdingOperator(holder);
  if (operator === null || !moment.byte(layout.operator(operator) + OPERATOR.up)) return false;
  for (const own of podsOf(moment, operator)) {
    const at = layout.pod(own);
    if (moment.byte(at + POD.record) === item + 1 && holdsLease(moment.byte(at + POD.memory))) return true;
  }
  return false;
}
