import { LEAST_RESTS } from "./verdict.ts";

const SECOND_MS = 1_000;
/** A round is the load between two rests. More rests make the slope surer, longer rounds leave more of the time to load. */
const ROUND_MS = { least: 20 * SECOND_MS, most: 60 * SECOND_MS } as const;
const WANTED_ROUNDS = 12;
/**
 * Of a long soak, as much as fills what remembers a bounded number of things: some 2,000 sessions do. One round has to be
 * enough for a short one.
 */
const WARM_UP_SHARE = 0.25;

export interface Plan {
  readonly rounds: number;
  /** The first of them, whose rests are not judged: code is compiled, connections and caches are filled. */
  readonly warmUpRounds: number;
  readonly roundMs: number;
}

/** Divides the time of a soak into rounds. */
export function planRounds(forMs: number): Plan {
  const enough = Math.min(WANTED_ROUNDS, Math.floor(forMs / ROUND_MS.least));
  const rounds = Math.max(1 + LEAST_RESTS, enough, Math.ceil(forMs / ROUND_MS.most));
  return { rounds, warmUpRounds: Math.max(1, Math.floor(rounds * WARM_UP_SHARE)), roundMs: forMs / rounds };
}
