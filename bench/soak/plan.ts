import { LEAST_RESTS } from "./verdict.ts";

const SECOND_MS = 1_000;
/** A round is the load between two rests. More rests make the slope surer, longer rounds leave more of the time to load. */
const ROUND_MS = { least: 20 * SECOND_MS, most: 60 * SECOND_MS } as const;
const WANTED_ROUNDS = 12;
/** With fewer rounds in all, one has to warm up everything. */
const ROUNDS_WITH_TWO_TO_WARM_UP = 8;

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
  return { rounds, warmUpRounds: rounds >= ROUNDS_WITH_TWO_TO_WARM_UP ? 2 : 1, roundMs: forMs / rounds };
}
