import type { Verdict } from "./api-health.ts";
import type { Breaker } from "./breaker.ts";
import type { CapacityProblem } from "./pool.ts";

/** What is said of capacity: what stands in its way, or that the maximum is reached while work waits. */
export function capacityVerdict(problem: CapacityProblem, use: { busy: number; max: number; depth: number }): Verdict {
  switch (problem?.is) {
    case undefined:
      if (use.depth > 0 && use.busy >= use.max) {
        return {
          reason: "AtMaximum",
          message: `${use.busy} of ${use.max} sessions run and ${use.depth} items wait; raise maxConcurrent to serve more at a time`,
        };
      }
      return { reason: "Available", message: "Pods can be made and get ready" };
    case "quota":
      return { reason: "QuotaExceeded", message: problem.message };
    case "unschedulable":
      return { reason: "Unschedulable", message: problem.message };
    case "image":
      return { reason: "ImagePullFailing", message: problem.message };
    case "refused":
    case "preparing":
      return { reason: "PreparationFailing", message: problem.message };
    default:
      return problem satisfies never;
  }
}

/** What is said of the containers' starts. `wallOf` turns a monotonic time into a wall-clock one. */
export function startVerdict(breaker: Breaker, wallOf: (monotonicMs: number) => number): Verdict {
  if (breaker.isOpen) {
    const next = new Date(wallOf(breaker.nextProbeAtMs)).toISOString().replace(/\.\d+Z$/, "Z");
    return {
      reason: "BreakerOpen",
      message: `${breaker.failures} sessions in a row did not start, nothing is claimed until ${next}: ${breaker.message}`,
    };
  }
  return breaker.hasServed
    ? { reason: "Starting", message: "sessions of the current template start" }
    : { reason: "NoSessionYet", message: "no session of the current template has started yet" };
}
