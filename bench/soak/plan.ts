import { LEAST_RESTS } from "./verdict.ts";

const SECOND_MS = 1_000;
/**
 * The length of a round, which is the load between two rests. More rests make the slope more reliable. Longer rounds
 * leave more time for load.
 */
const ROUND_MS = { least: 20 * SECOND_MS, most: 60 * SECOND_MS } as const;
const WANTED_ROUNDS = 12;
/**
 * The share of a long soak that fills every structure of bounded size, which takes about 2,000 sessions. In a short
 * soak, one round must be enough.
 */
const WARM_UP_SHARE = 0.25;

export interface Plan {
  readonly rounds: number;
  /**
   * The number of rounds at the start whose rests aren't judged, because code is still compiled and connections and
   * caches fill up.
   */
  readonly warmUpRounds: number;
  readonly roundMs: number;
}

/** Divides the time of a soak into rounds. */
export function planRounds(forMs: number): Plan {
  const enough = Math.min(WANTED_ROUNDS, Math.floor(forMs / ROUND_MS.least));
  const rounds = Math.max(1 + LEAST_RESTS, enough, Math.ceil(forMs / ROUND_MS.most));
  return { rounds, warmUpRounds: Math.max(1, Math.floor(rounds * WARM_UP_SHARE)), roundMs: forMs / rounds };
}
