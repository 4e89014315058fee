/** The part of the demand from the queue's statistics. */
export interface QueueReading {
  readonly depth: number;
  readonly pending: number;
  /** When the request was sent, on the monotonic clock, in milliseconds. */
  readonly readMs: number;
}

/** The part of the demand from the list of work items: those in the states starting, active and stopping. */
export interface RunningReading {
  readonly running: number;
  /** When the request for the first page was sent, on the monotonic clock, in milliseconds. */
  readonly readMs: number;
}

/**
 * Used instead of a count: no item waits and this Environment has no worker, so all running sessions belong to other
 * clients. The operator does not count sessions then. That is not an error; it counts them as soon as there is a worker
 * or a waiting item.
 */
export const NONE_OF_OURS = "none of ours";

/**
 * The last readings; null before the first successful one. A failed reading keeps the last good one, which then becomes
 * stale. Statistics and list are two requests. An item that moves from the queue to a worker in between is counted
 * twice if the statistics are read first, and not at all otherwise. So read the statistics first.
 */
export interface DemandReadings {
  readonly queue: QueueReading | null;
  readonly running: RunningReading | typeof NONE_OF_OURS | null;
}

/** The number of sessions that need a worker, or why it is unknown. */
export type Demand =
  | { readonly kind: "known"; readonly sessions: number; readonly running: number; readonly pending: number }
  | { readonly kind: "unknown"; readonly reason: "DemandUnknown" | "DemandStale"; readonly message: string };

const MS = 1_000;

/** Running + waiting + polled. Unknown if any part has never been read, or was read longer than `staleAfterMs` ago. */
export function demandOf(readings: DemandReadings, nowMs: number, staleAfterMs: number): Demand {
  const { queue, running } = readings;
  if (!queue) return unknown("DemandUnknown", "the operator has not read the queue's statistics yet");
  const isIdle = running === NONE_OF_OURS && queue.depth === 0 && queue.pending === 0;
  if (!running || (running === NONE_OF_OURS && !isIdle)) {
    return unknown("DemandUnknown", "the operator has not counted running sessions yet");
  }
  if (!isCount(queue.depth) || !isCount(queue.pending)) {
    return unknown("DemandUnknown", "the queue's statistics are not numbers");
  }
  if (running !== NONE_OF_OURS && !isCount(running.running)) {
    return unknown("DemandUnknown", "running sessions could not be counted");
  }
  if (nowMs - queue.readMs > staleAfterMs) return unknown("DemandStale", ageOf("statistics were", queue, nowMs));
  if (running === NONE_OF_OURS) return { kind: "known", sessions: 0, running: 0, pending: 0 };
  if (nowMs - running.readMs > staleAfterMs)
    return unknown("DemandStale", ageOf("running sessions were", running, nowMs));
  return {
    kind: "known",
    sessions: running.running + queue.depth + queue.pending,
    running: running.running,
    pending: queue.pending,
  };
}

/** Whether no session runs or waits for its acknowledgement, so that no worker can be busy. */
export function areAllIdle(demand: Demand): boolean {
  return demand.kind === "known" && demand.running + demand.pending === 0;
}

function unknown(reason: "DemandUnknown" | "DemandStale", message: string): Demand {
  return { kind: "unknown", reason, message };
}

function ageOf(what: string, reading: { readonly readMs: number }, nowMs: number): string {
  return `${what} last read ${Math.round((nowMs - reading.readMs) / MS)} s ago`;
}

/** An error is never read as zero: NaN, negative and infinite numbers are not counts. */
function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
