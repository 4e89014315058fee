import type { Pod } from "../kube/resource.ts";
import { stateOf } from "../pods/pod-state.ts";
import { isAsleep, livesOn, newestTurn } from "../pods/turns.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";

/** What a session's Pod can do for its next work item. */
export type SessionPod =
  /** Its next turn waits. */
  | { readonly is: "ready"; readonly pod: Pod }
  /** It gets ready, or its last work item is being settled. */
  | { readonly is: "busy" };

/** Whether the Pod ended, or its session was lost with its node: it keeps no files. */
export function hasEnded(pod: Pod): boolean {
  return stateOf(pod).is === "ended" && !livesOn(pod, newestTurn(pod)) && !isAsleep(pod);
}

/**
 * Whether a Pod runs this session, or may still start it (invariant 2): the Pod of one of our claims, or one that is
 * being ended because another client deleted its record.
 */
export function hasPodFor(
  context: Pick<PoolContext, "pods" | "kube" | "timing">,
  claims: ClaimTable,
  sessionId: string,
): boolean {
  if (claims.runs(sessionId)) return true;
  const overMs = context.kube.now() - context.timing.podOverdueMs;
  return context.pods.ofSession(sessionId).some((pod) => !isAsleep(pod) && !isOverdue(pod, overMs) && isLive(pod));
}

/** The node doesn't end the Pod and may never report on it: the Pod is given up as a claim's Pod would be. */
function isOverdue({ metadata }: Pod, overMs: number): boolean {
  return metadata.deletionTimestamp !== undefined && Date.parse(metadata.deletionTimestamp) < overMs;
}

function isLive(pod: Pod): boolean {
  return stateOf(pod).is !== "ended";
}
