import { WORK_STATES, type WorkItem, type WorkState } from "./item.ts";

/** Statistics of a list of durations, in seconds. */
export interface Distribution {
  readonly count: number;
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** A summary of what happened so far. */
export interface Report {
  readonly items: Readonly<Record<WorkState, number>>;
  readonly total: number;
  /** Items that had a first heartbeat and were stopped. */
  readonly served: number;
  /** Items that were queued more than once. */
  readonly requeued: number;
  readonly beats: number;
  readonly refusedBeats: number;
  readonly toolCalls: number;
  readonly violations: number;
  readonly excused: number;
  /** The number of requests by call and status, for example `poll 200`. */
  readonly requests: Readonly<Record<string, number>>;
  /** Seconds on the simulator's clock. Undefined if there are no values yet. */
  readonly queuedToOffered: Distribution | undefined;
  readonly queuedToAcked: Distribution | undefined;
  readonly queuedToFirstBeat: Distribution | undefined;
  readonly queuedToStopped: Distribution | undefined;
}

export function reportOf(
  items: Iterable<WorkItem>,
  counts: Pick<Report, "toolCalls" | "violations" | "excused" | "requests">,
): Report {
  const byState = Object.fromEntries(WORK_STATES.map((state) => [state, 0])) as Record<WorkState, number>;
  const sums = { total: 0, served: 0, requeued: 0, beats: 0, refusedBeats: 0 };
  const waits = { offered: [] as number[], acked: [] as number[], beat: [] as number[], stopped: [] as number[] };
  for (const item of items) {
    byState[item.state] += 1;
    sums.total += 1;
    sums.beats += item.beats;
    sums.refusedBeats += item.refusedBeats;
    if (item.generation > 1) sums.requeued += 1;
    if (item.state === "stopped" && item.firstBeatAt !== undefined) sums.served += 1;
    addWait(waits.offered, item, item.offers[0]?.at);
    addWait(waits.acked, item, item.acks[0]?.at);
    addWait(waits.beat, item, item.firstBeatAt);
    addWait(waits.stopped, item, item.stoppedAt);
  }
  return {
    items: byState,
    ...sums,
    ...counts,
    queuedToOffered: distribution(waits.offered),
    queuedToAcked: distribution(waits.acked),
    queuedToFirstBeat: distribution(waits.beat),
    queuedToStopped: distribution(waits.stopped),
  };
}

const MS_PER_SECOND = 1000;

function addWait(list: number[], item: WorkItem, at: number | undefined): void {
  if (at !== undefined) list.push((at - item.createdAt) / MS_PER_SECOND);
}

/** Computes nearest-rank quantiles. @returns undefined if there are no values */
export function distribution(values: readonly number[]): Distribution | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const max = sorted.at(-1);
  if (max === undefined) return undefined;
  const quantile = (q: number) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? max;
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  return { count: sorted.length, mean, p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), max };
}
