import { acknowledgeSteps, freeSteps } from "./claiming.ts";
import { deliverSteps } from "./delivering.ts";
import { crash, podsOf } from "./effects.ts";
import { keepSteps, lostSteps, openSteps, overdueSteps, silenceSteps, watchSteps } from "./keeping.ts";
import type { Moment } from "./moment.ts";
import { doubtSteps, reuseSteps, settleSteps } from "./settling.ts";
import { OPERATOR } from "./state.ts";
import { Turn } from "./turn.ts";

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
  if (moment.rules.moved !== "never") {
    const next = moment.fork();
    next[at + OPERATOR.moved] = 1 - moment.byte(at + OPERATOR.moved);
    moment.of(operator, next, "user.move-api", { fault: true });
  }
  for (const pod of podsOf(moment, operator)) podSteps(new Turn(moment, pod));
}

function podSteps(turn: Turn): void {
  if (turn.item < 0) {
    freeSteps(turn);
    return;
  }
  acknowledgeSteps(turn);
  openSteps(turn);
  if (turn.isShell) deliverSteps(turn);
  if (turn.byOperator && turn.hasKey) keepSteps(turn);
  if (turn.byOperator) silenceSteps(turn);
  else watchSteps(turn);
  lostSteps(turn);
  overdueSteps(turn);
  doubtSteps(turn);
  settleSteps(turn);
  reuseSteps(turn);
}
