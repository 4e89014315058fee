import { endContainer } from "./effects.ts";
import { isLineUnderWay, lineBreaks, sendLine, startProgram } from "./lines.ts";
import type { Moment } from "./moment.ts";
import { BODY, OBJECT, POD, SHELL } from "./state.ts";

// `parking: Shell`: what happens to a waiting shell, and to requests whose process has ended or stopped waiting.

/** Steps of no operator, for one Pod. */
export function shellSteps(moment: Moment, pod: number): void {
  const at = moment.layout.pod(pod);
  lateTouchSteps(moment, pod);
  if (moment.byte(at + POD.body) !== BODY.parked) return;
  for (let item = 0; item < moment.layout.items; item += 1) {
    if (isLineUnderWay(moment, pod, item)) lineArrives(moment, pod, item);
  }
  staleLeaderStep(moment, pod);
  const ended = moment.fork();
  endContainer(moment, ended, pod);
  // The shell of a deleted Pod ends; on a lost node, when that comes back.
  if (moment.byte(at + POD.object) !== OBJECT.exists) moment.hidden(ended, "node.end", { pod });
  else moment.hidden(ended, "fault.kill-container", { pod, fault: true });
}

/** The shell reads a whole line, and starts its program. */
function lineArrives(moment: Moment, pod: number, item: number): void {
  const next = moment.fork();
  const breaks = startProgram(moment, next, pod, item);
  moment.hidden(next, "network.line", { pod, item, breaks });
}

/** The patch that marks the Pod as assigned takes effect or is lost. */
function lateTouchSteps(moment: Moment, pod: number): void {
  const at = moment.layout.shell(pod);
  if (!moment.byte(at + SHELL.lateTouch)) return;
  const lost = moment.fork();
  lost[at + SHELL.lateTouch] = 0;
  moment.hidden(lost, "network.late-touch", { pod });
  const landed = moment.fork();
  landed[at + SHELL.assigned] = 1;
  moment.hidden(landed, "network.late-touch", { pod });
}

function staleLeaderStep(moment: Moment, pod: number): void {
  const at = moment.layout.shell(pod);
  const item = moment.byte(at + SHELL.stale) - 1;
  if (item < 0) return;
  const next = moment.fork();
  next[at + SHELL.stale] = 0;
  next[at + SHELL.sent] = 1;
  sendLine(moment, next, pod, item, false);
  moment.hidden(next, "fault.stale-leader", { pod, item, fault: true, breaks: lineBreaks(moment, pod, item) });
}
