import { acknowledgeSteps, freeSteps } from "./claiming.ts";
import { deliverSteps } from "./delivering.ts";
import { crash, podsOf } from "./effects.ts";
import { keepSteps, lostSteps, openSteps, overdueSteps, silenceSteps, watchSteps } from "./keeping.ts";
import type { Moment } from "./moment.ts";
import { doubtSteps, reuseSteps, settleSteps } from "./settling.ts";
import { claimedTurnSteps } from "./sleeping.ts";
import { Slot } from "./slot.ts";
import { OPERATOR } from "./state.ts";
import { volumesOf } from "./volume.ts";
import { assignSteps, volumeSteps } from "./volumes.ts";

/** Reports everything that one operator may do next, and the faults that may hit it. */
export function operatorSteps(moment: Moment, operator: number): void {
  const at = moment.layout.operator(operator);
  if (!moment.byte(at + OPERATOR.up)) {
    const next = moment.fork();
    next[at + OPERATOR.up] = 1;
    moment.of(operator, next, "operator.restart");
    return;
  }
  moment.of(operator, crash(moment, moment.fork(), operator), "fault.crash", { fault: true });
  if (moment.rules.deletion && !moment.byte(at + OPERATOR.deleted)) {
    const next = moment.fork();
    next[at + OPERATOR.deleted] = 1;
    moment.of(operator, next, "user.delete-environment", { fault: true });
  }
  for (const pod of podsOf(moment, operator)) podSteps(new Slot(moment, pod));
  for (const volume of volumesOf(moment, operator)) volumeSteps(volume);
}

function podSteps(slot: Slot): void {
  if (slot.item < 0) {
    freeSteps(slot);
    return;
  }
  if (slot.hasTurns && claimedTurnSteps(slot)) return;
  assignSteps(slot);
  acknowledgeSteps(slot);
  openSteps(slot);
  if (slot.isShell) deliverSteps(slot);
  if (slot.byOperator && slot.hasKey) keepSteps(slot);
  if (slot.byOperator) silenceSteps(slot);
  else watchSteps(slot);
  lostSteps(slot);
  overdueSteps(slot);
  doubtSteps(slot);
  settleSteps(slot);
  reuseSteps(slot);
}
