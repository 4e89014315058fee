import type { WorkersSpec } from "../api/workers-spec.ts";

/** The workers that `sessions` need, before any limit: each serves `sessionsPerReplica` at a time. */
export function replicasFor(sessions: number, spec: Pick<WorkersSpec, "sessionsPerReplica">): number {
  return Math.ceil(sessions / spec.sessionsPerReplica);
}
