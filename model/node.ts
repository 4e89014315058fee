import { dropRecord, endContainer, moveHeartbeat, stopItem } from "./effects.ts";
import { startProgram } from "./lines.ts";
import type { Moment } from "./moment.ts";
import { shellSteps } from "./shell.ts";
import { Slot } from "./slot.ts";
import { BODY, holderOfPod, ITEM, isAlive, OBJECT, POD, SHELL, STATE } from "./state.ts";
import { turnNodeSteps } from "./turns.ts";

/** What the kubelet and faults do to a Pod. */
export function nodeSteps(moment: Moment, pod: number): void {
  const { layout } = moment;
  const at = layout.pod(pod);
  const body = moment.byte(at + POD.body);
  const object = moment.byte(at + POD.object);
  const record = moment.byte(at + POD.record);
  // The kubelet may sync at any moment.
  if (body === BODY.parked && object && record && moment.byte(at + POD.key) && !layout.isShell) {
    const next = moment.fork();
    const breaks = startProgram(moment, next, pod, record - 1);
    moment.hidden(next, "node.start", { pod, item: record - 1, breaks });
  }
  if (layout.isShell) shellSteps(moment, pod);
  lateKeySteps(moment, pod);
  if (layout.hasTurns) turnNodeSteps(moment, pod);
  const alive = isAlive(body);
  if (!layout.hasTurns && object && (alive || body === BODY.parked || body === BODY.ended)) {
    const next = moment.fork();
    next[at + POD.object] = 0;
    if (moment.rules.record === "with-its-pod") dropRecord(moment, next, pod);
    // The shell of a lost node may still read a line that is under way.
    const mayStart = body === BODY.parked && moment.byte(layout.shell(pod) + SHELL.lines) !== 0;
    if (!alive && !mayStart) next[at + POD.body] = BODY.gone;
    moment.hidden(next, alive || mayStart ? "fault.lose-node" : "fault.delete-pod", { pod, fault: true });
    if (mayStart) {
      next[at + POD.object] = OBJECT.terminating;
      moment.hidden(next, "fault.delete-pod", { pod, fault: true });
    }
  }
  if (record && mayDeleteSecret(moment, pod)) {
    const next = moment.fork();
    dropRecord(moment, next, pod);
    moment.hidden(next, "user.delete-secret", { pod, item: record - 1, fault: true });
  }
  if (!alive) return;
  const killed = moment.fork();
  endContainer(moment, killed, pod);
  moment.hidden(killed, "fault.kill-container", { pod, fault: true });
  if (moment.rules.lease === "Worker") {
    workerSteps(moment, pod);
    return;
  }
  // The program never touches its item.
  const finished = moment.fork();
  endContainer(moment, finished, pod);
  moment.hidden(finished, "node.end", { pod });
}

/** Whether a user may delete the claim's Secret now. */
function mayDeleteSecret(moment: Moment, pod: number): boolean {
  const { secretDeletion } = moment.rules;
  if (secretDeletion !== "while-marked") return secretDeletion === "any-time";
  const slot = new Slot(moment, pod);
  return !slot.isWoken || !slot.hasKey || slot.isAssigned || slot.ended >= slot.turn;
}

/**
 * The patch of a crashed operator takes effect or is lost. On a recreated Secret it takes effect only without a version
 * check.
 */
function lateKeySteps(moment: Moment, pod: number): void {
  const at = moment.layout.pod(pod);
  const stamp = moment.byte(at + POD.lateKey);
  if (!stamp) return;
  const lost = moment.fork();
  lost[at + POD.lateKey] = 0;
  moment.hidden(lost, "network.late-key", { pod });
  if (!moment.byte(at + POD.record)) return;
  const landed = moment.fork();
  landed[at + POD.lateKey] = 0;
  landed[at + POD.key] = 1;
  landed[at + POD.known] = stamp;
  moment.hidden(landed, "network.late-key", { pod });
}

/** lease: Worker. What the container's program does with the item that it was started for. */
function workerSteps(moment: Moment, pod: number): void {
  const body = moment.byte(moment.layout.pod(pod) + POD.body);
  if (body === BODY.running) firstBeatSteps(moment, pod);
  else if (body === BODY.holding) beatSteps(moment, pod);
  else if (body === BODY.leaving) {
    // On a lost node, the kubelet ends it after it comes back and finds no Pod.
    if (moment.rules.worker === "stays" && moment.byte(moment.layout.pod(pod) + POD.object)) return;
    const next = moment.fork();
    endContainer(moment, next, pod);
    moment.hidden(next, "worker.exit", { pod });
  } else stopSteps(moment, pod);
  if (!moment.rules.sigterm || (body !== BODY.running && body !== BODY.holding)) return;
  become(moment, pod, "fault.terminate-container", body === BODY.holding ? BODY.finishing : BODY.terminated, true);
}

function become(
  moment: Moment,
  pod: number,
  name: "worker.first-beat" | "worker.beat" | "worker.finish" | "fault.terminate-container",
  body: number,
  fault = false,
): void {
  const next = moment.fork();
  next[moment.layout.pod(pod) + POD.body] = body;
  moment.hidden(next, name, { pod, fault });
}

function firstBeatSteps(moment: Moment, pod: number): void {
  const { layout, rules } = moment;
  const at = layout.pod(pod);
  const item = moment.byte(at + POD.serves) - 1;
  const itemAt = layout.item(item);
  const state = moment.byte(itemAt + ITEM.state);
  const taken = state === STATE.starting || (state === STATE.queued && rules.beatOnQueued === "accepted");
  if (!taken || moment.byte(itemAt + ITEM.holder)) {
    become(moment, pod, "worker.first-beat", isTold(state) ? BODY.finishing : BODY.leaving);
    return;
  }
  const next = moment.fork();
  next[itemAt + ITEM.state] = STATE.active;
  next[itemAt + ITEM.offer] = 0;
  next[itemAt + ITEM.holder] = holderOfPod(pod);
  next[at + POD.body] = BODY.holding;
  moveHeartbeat(moment, next, item);
  moment.hidden(next, "worker.first-beat", { pod, item });
  next[at + POD.body] = BODY.leaving;
  moment.hidden(next, "worker.first-beat", { pod, item, fault: true });
}

function beatSteps(moment: Moment, pod: number): void {
  const { layout } = moment;
  const at = layout.pod(pod);
  const item = moment.byte(at + POD.serves) - 1;
  const itemAt = layout.item(item);
  const state = moment.byte(itemAt + ITEM.state);
  if (isTold(state) || moment.byte(itemAt + ITEM.holder) !== holderOfPod(pod)) {
    become(moment, pod, "worker.beat", isTold(state) ? BODY.finishing : BODY.leaving);
  } else {
    const next = moment.fork();
    moveHeartbeat(moment, next, item);
    moment.hidden(next, "worker.beat", { pod, item });
    // The answer is lost, and the next heartbeat sends an old value.
    next[at + POD.body] = BODY.leaving;
    moment.hidden(next, "worker.beat", { pod, item, fault: true });
  }
  become(moment, pod, "worker.finish", BODY.finishing);
}

function stopSteps(moment: Moment, pod: number): void {
  const { layout } = moment;
  const item = moment.byte(layout.pod(pod) + POD.serves) - 1;
  const lost = moment.fork();
  endContainer(moment, lost, pod);
  moment.hidden(lost, "worker.exit", { pod, fault: true });
  const next = moment.fork();
  endContainer(moment, next, pod);
  const breaks = stopItem(moment, next, item, layout.operatorOf(pod), true);
  moment.hidden(next, "worker.stop", { pod, item, breaks });
}

/** Whether the answer to a heartbeat shows a state that tells the worker to stop. */
function isTold(state: number): boolean {
  return state === STATE.stopping || state === STATE.stopped;
}
