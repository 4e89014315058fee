import type { Facts } from "./facts.ts";
import { beforeOpening } from "./opening.ts";
import { adopt, watchHeld } from "./operator-lease.ts";
import { settle } from "./settling.ts";
import { starting } from "./starting.ts";
import { FOREVER, type Step } from "./step.ts";
import { running } from "./worker-lease.ts";

/** Decides on the next step of a claim; pure. */
export function nextStep(facts: Facts): Step {
  const { claim, pod } = facts;
  if (claim.record.claiming) return FOREVER;
  if (!claim.record.journal.opened) return beforeOpening(facts);
  if (pod.is === "ended" || pod.is === "gone" || claim.observed.end !== null) return settle(facts);
  const beats = claim.record.journal.lease === "Operator";
  // Going already: its container's end is what comes next.
  if (facts.podGoneByMs !== null) return beats ? whileGoing(facts, facts.podGoneByMs) : until(facts.podGoneByMs);
  if (beats) return claim.lease.own === null ? adopt(facts) : watchHeld(facts);
  if (pod.is === "running") return running(facts, pod.startedAtMs);
  return starting(facts);
}

/** A lease that an earlier process kept is kept on until the container has ended. */
function whileGoing(facts: Facts, goneByMs: number): Step {
  if (facts.claim.lease.own !== null) return until(goneByMs);
  const step = adopt(facts);
  if (step.do === "wait") return until(Math.min(step.untilMs ?? goneByMs, goneByMs));
  return step.do === "delete-pod" ? until(goneByMs) : step;
}

function until(ms: number): Step {
  return { do: "wait", untilMs: ms };
}
