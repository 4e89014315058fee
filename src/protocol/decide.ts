import type { Claim } from "./claim.ts";
import type { Facts, LeaseKind } from "./facts.ts";
import { beforeOpening } from "./opening.ts";
import { OPERATOR_LEASE } from "./operator-lease.ts";
import { FOREVER, type Step } from "./step.ts";
import { WORKER_LEASE } from "./worker-lease.ts";

/** Decides the next step of a claim. Pure. The kind of the claim's lease is chosen here and nowhere else. */
export function nextStep(facts: Facts): Step {
  const { claim, pod, podGoneByMs } = facts;
  if (claim.record.claiming) return FOREVER;
  const kind = kindOf(claim);
  if (!claim.record.journal.opened) return beforeOpening(facts, kind);
  if (pod.is === "ended" || pod.is === "gone" || claim.observed.end !== null) return kind.settle(facts);
  return podGoneByMs === null ? kind.watch(facts) : kind.whileDeleting(facts, podGoneByMs);
}

/** A lease that the operator took stays its own, whatever someone writes into the claim's Secret. */
function kindOf({ record, lease }: Readonly<Claim>): LeaseKind {
  return record.journal.lease === "Operator" || lease.own !== null ? OPERATOR_LEASE : WORKER_LEASE;
}
