import { type Circumstances, checkSession } from "./check-session.ts";
import { project } from "./projection.ts";
import type { TraceRecorder } from "./trace.ts";

/** The totals of a check. */
export interface Tally {
  /** Sessions; each has its own trace. */
  readonly traces: number;
  /** Entries that map to a step of the model. */
  readonly steps: number;
  /** The most candidates at a time. */
  readonly widest: number;
}

/**
 * Checks the trace of every session.
 * @param sessionOf the session of a work item; by default, each is a session of its own
 * @throws {TraceError} when the model does not allow one of them
 */
export function checkTrace(
  recorder: TraceRecorder,
  circumstances: Circumstances,
  sessionOf = (workId: string) => workId,
): Tally {
  const sessions = Map.groupBy(recorder.items, sessionOf);
  const tallies = [...sessions].map(([sessionId, workIds]) => ({
    traces: 1,
    ...checkSession(project(recorder.entries, workIds, sessionId), circumstances),
  }));
  return addUp(tallies);
}

export function addUp(tallies: readonly Tally[]): Tally {
  return tallies.reduce(
    (all, one) => ({
      traces: all.traces + one.traces,
      steps: all.steps + one.steps,
      widest: Math.max(all.widest, one.widest),
    }),
    { traces: 0, steps: 0, widest: 0 },
  );
}

export function wordsOf({ traces, steps, widest }: Tally): string {
  const [many, more] = [traces, steps].map((count) => count.toLocaleString("en"));
  return `traces: ${many} checked, ${more} steps, at most ${widest} ways at a time in which things could stand\n`;
}
