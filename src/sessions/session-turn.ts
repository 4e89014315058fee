import type { Pod } from "../kube/resource.ts";
import { readPodState } from "../pods/pod-state.ts";
import type { ClaimTable } from "./claim-table.ts";
import type { SessionContext } from "./context.ts";

/**
 * Whether a Pod runs this session, or may come to (invariant 2): one of our claims', or one that is being ended since
 * somebody deleted its record.
 */
export function runsSession(
  context: Pick<SessionContext, "pods" | "kube" | "timing">,
  claims: ClaimTable,
  sessionId: string,
): boolean {
  if (claims.runs(sessionId)) return true;
  const overMs = context.kube.now() - context.timing.podOverdueMs;
  return context.pods.assignedTo(sessionId).some((pod) => !isOverdue(pod, overMs) && isLive(pod));
}

/** Its node does not end it, and may never tell: it is given up like one of a claim. */
function isOverdue({ metadata }: Pod, overMs: number): boolean {
  return metadata.deletionTimestamp !== undefined && Date.parse(metadata.deletionTimestamp) < overMs;
}

function isLive(pod: Pod): boolean {
  return readPodState(pod).is !== "ended";
}
