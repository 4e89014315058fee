import type { Measure, Vitals } from "./vitals.ts";

/** The vitals at a rest: no session is in progress, and the Environments are the same as at every other rest. */
export interface Rest {
  /** The number of sessions served so far. */
  readonly sessions: number;
  readonly vitals: Vitals;
}

/** How much a measure may grow over a whole run. The larger of the two limits applies. */
export interface Bound {
  /** The limit in the measure's own unit. */
  readonly absolute: number;
  /** The limit as a share of the value at the first rest. */
  readonly share: number;
  /** Why the limit isn't zero. */
  readonly because: string;
}

export interface Growth {
  readonly measure: Measure;
  /** The values at the first rest after the warm-up and at the last rest. */
  readonly first: number;
  readonly last: number;
  /** The growth from the first rest to the last, by the slope over all rests. */
  readonly grown: number;
  readonly allowed: number;
  readonly isFlat: boolean;
}

const MIB = 1_024 ** 2;

/** The limits for a whole run of any length, so that a longer run finds smaller leaks. */
export const BOUNDS: Readonly<Record<Measure, Bound>> = {
  heapBytes: {
    absolute: 3 * MIB,
    share: 0.1,
    because: "code that is compiled late, and memories with a documented limit",
  },
  rssBytes: { absolute: 32 * MIB, share: 0.2, because: "V8 decides when it returns the heap's pages to the kernel" },
  sockets: {
    absolute: 32,
    share: 0,
    because: "connections to the API server are kept for 30 s after their last request",
  },
  files: { absolute: 1, share: 0, because: "a file may be open at the time" },
  timers: { absolute: 64, share: 0.1, because: "each open connection has two" },
  handles: { absolute: 32, share: 0.1, because: "the same as sockets" },
  entries: {
    absolute: 9_000,
    share: 0.1,
    because: "the operator remembers 4,096 Events and 4,096 of their objects; a session adds five",
  },
  signals: { absolute: 50, share: 0.1, because: "requests in flight at the time" },
  environmentSeries: {
    absolute: 40,
    share: 0.05,
    because: "a label of a lasting Environment that appears for the first time",
  },
  otherSeries: { absolute: 150, share: 0.15, because: "a status code that appears for the first time has buckets" },
};

/** With fewer points, a single one could change the slope. */
export const LEAST_RESTS = 3;

/** Judges the growth of each measure. @throws {RangeError} fewer than LEAST_RESTS rests */
export function judge(rests: readonly Rest[], bounds: Readonly<Record<Measure, Bound>> = BOUNDS): Growth[] {
  const [first, last] = [rests[0], rests.at(-1)];
  if (!first || !last || rests.length < LEAST_RESTS) {
    throw new RangeError(`${rests.length} rests are too few to judge growth; at least ${LEAST_RESTS} are needed`);
  }
  return (Object.keys(bounds) as Measure[]).map((measure) => {
    const points = rests.map(({ sessions, vitals }) => ({ x: sessions, y: vitals[measure] }));
    const grown = slopeOf(points) * (last.sessions - first.sessions);
    const { absolute, share } = bounds[measure];
    const allowed = Math.max(absolute, share * first.vitals[measure]);
    const [from, to] = [first.vitals[measure], last.vitals[measure]];
    return { measure, first: from, last: to, grown, allowed, isFlat: grown <= allowed };
  });
}

interface Point {
  readonly x: number;
  readonly y: number;
}

/**
 * Returns the median of the slopes between all pairs of points (Theil-Sen). Up to 29 of 100 points may be outliers
 * without changing it. Returns zero if all points have the same x.
 */
export function slopeOf(points: readonly Point[]): number {
  const slopes = points.flatMap((from, at) =>
    points.slice(at + 1).flatMap((to) => (to.x === from.x ? [] : [(to.y - from.y) / (to.x - from.x)])),
  );
  return slopes.length === 0 ? 0 : median(slopes);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  const [low, high] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}
