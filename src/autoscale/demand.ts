/** The part of the demand that the queue's statistics say. */
export interface QueueReading {
  readonly depth: number;
  readonly pending: number;
  /** When the request was sent, on the monotonic clock, in milliseconds. */
  readonly readMs: number;
}

/** The part of the demand that the list of work items says: those in states starting, active and stopping. */
export interface RunningReading {
  readonly running: number;
  /** When the request of the first page was sent, on the monotonic clock, in milliseconds. */
  readonly readMs: number;
}

/**
 * Instead of a count: nothing waits and no worker of ours is there, so that whatever runs is somebody else's. Whether and how
 * many sessions run is not read then; it is no error, and matters as soon as a worker is there or an item waits.
 */
export const NONE_OF_OURS = "none of ours";

/**
 * What was last read; null before the first good reading. A reading that failed leaves the last good one, which then
 * grows old. Statistics and list are two requests: an item that moves from the queue to a worker between them is counted
 * twice when the statistics are read first, and not at all the other way round. So read the statistics first.
 */
export interface DemandReadings {
  readonly queue: QueueReading | null;
  readonly running: RunningReading | typeof NONE_OF_OURS | null;
}

/** How many sessions want a worker, or why that is not known. */
export type Demand =
  | { readonly kind: "known"; readonly sessions: number; readonly running: number; readonly pending: number }
  | { readonly kind: "unknown"; readonly reason: "DemandUnknown" | "DemandStale"; readonly message: string };

const MS = 1_000;

/** Running + waiting + polled. Unknown when any part was never read, or was read longer than `staleAfterMs` ago. */
export function demandOf(readings: DemandReadings, nowMs: number, staleAfterMs: number): Demand {
  const { queue, running } = readings;
  if (!queue) return unknown("DemandUnknown", "the queue's statistics were not read yet");
  const isIdle = running === NONE_OF_OURS && queue.depth === 0 && queue.pending === 0;
  if (!running || (running === NONE_OF_OURS && !isIdle)) {
    return unknown("DemandUnknown", "running sessions were not counted yet");
  }
  if (!isCount(queue.depth) || !isCount(queue.pending)) {
    return unknown("DemandUnknown", "the queue's statistics are no counts");
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

function unknown(reason: "DemandUnknown" | "DemandStale", message: string): Demand {
  return { kind: "unknown", reason, message };
}

function ageOf(what: string, reading: { readonly readMs: number }, nowMs: number): string {
  return `${what} last read ${Math.round((nowMs - reading.readMs) / MS)} s ago`;
}

/** An error is never read as zero: NaN, negative and infinite numbers are no counts. */
function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
