import { acknowledge, isHeldAlive, lapse, moveHeartbeat } from "./effects.ts";
import { endBoundedLines } from "./lines.ts";
import type { Moment } from "./moment.ts";
import { BODY, ITEM, OPERATOR, POD, POD_BYTES, STATE, type State } from "./state.ts";

/** What time and users do to an item on the Work API. */
export function serverSteps(moment: Moment, item: number): void {
  const { layout, rules } = moment;
  const at = layout.item(item);
  const state = moment.byte(at + ITEM.state);
  const offer = moment.byte(at + ITEM.offer);
  if (state === STATE.queued && offer && !isAckUnderWay(moment, item, offer - 1)) {
    const next = moment.fork();
    next[at + ITEM.offer] = 0;
    moment.hidden(next, "work-api.reclaim", { item });
  }
  if (state === STATE.starting && rules.unbeaten === "queued") {
    const next = moment.fork();
    lapse(moment, next, item, STATE.queued);
    moment.hidden(next, "work-api.expire", { item });
  }
  if ((state === STATE.active || state === STATE.stopping) && moment.byte(at + ITEM.holder)) lapseSteps(moment, item);
  if (state === STATE.starting || state === STATE.active || (state === STATE.queued && offer)) {
    const next = moment.fork();
    next[at + ITEM.state] = state === STATE.queued ? STATE.stopped : STATE.stopping;
    moment.hidden(next, "user.stop", { item, fault: true });
  }
  const isLive = state === STATE.starting || state === STATE.active || state === STATE.stopping;
  if (isLive && rules.userStops === "also-by-force") {
    const next = moment.fork();
    next[at + ITEM.state] = STATE.stopped;
    moveHeartbeat(moment, next, item);
    moment.hidden(next, "user.stop", { item, fault: true });
  }
}

/** An acknowledgement sent in the window arrives before the item can be offered again, unless it is late. */
function isAckUnderWay(moment: Moment, item: number, operator: number): boolean {
  const { layout, rules } = moment;
  return (
    rules.lateAck !== "late" &&
    rules.window !== "nobody" &&
    moment.byte(layout.operator(operator) + OPERATOR.lateAck) === item + 1
  );
}

function lapseSteps(moment: Moment, item: number): void {
  const { layout, rules } = moment;
  const at = layout.item(item);
  const isStopping = moment.byte(at + ITEM.state) === STATE.stopping;
  const fault = isHeldAlive(moment, item);
  const next = moment.fork();
  if (isStopping && rules.lapsedStopping === "stays") {
    next[at + ITEM.holder] = 0;
    endBoundedLines(moment, next, item);
  } else lapse(moment, next, item, isStopping || rules.lapsed === "stopped" ? STATE.stopped : STATE.queued);
  if (rules.worker !== "late") leaveAll(moment, next, item);
  moment.hidden(next, "work-api.lapse", { item, fault });
}

/** A prompt worker's clock runs ahead of its lease, so it leaves before the lease lapses. */
function leaveAll(moment: Moment, next: State, item: number): void {
  const { podsAt, operatorsAt } = moment.layout;
  for (let at = podsAt; at < operatorsAt; at += POD_BYTES) {
    const body = next[at + POD.body];
    if (next[at + POD.serves] === item + 1 && (body === BODY.holding || body === BODY.finishing)) {
      next[at + POD.body] = BODY.leaving;
    }
  }
}

/** An acknowledgement whose sender gave up or is gone is handled or lost. */
export function lateAckSteps(moment: Moment, operator: number): void {
  const at = moment.layout.operator(operator) + OPERATOR.lateAck;
  const item = moment.byte(at) - 1;
  if (item < 0) return;
  const lost = moment.fork();
  lost[at] = 0;
  moment.of(operator, lost, "network.late-ack", { item, outcome: "lost" });
  const handled = moment.fork();
  handled[at] = 0;
  acknowledge(moment, handled, item, operator);
  moment.of(operator, handled, "network.late-ack", { item, outcome: "ok" });
}
