/** The shape of a backoff, in milliseconds. */
export interface BackoffPolicy {
  readonly baseMs: number;
  readonly maxMs: number;
  /** Growth per failure; 2 unless given. */
  readonly factor?: number;
}

/**
 * Exponential backoff with "equal jitter": half of the delay is fixed, half is random. Full jitter could return 0,
 * which turns a failing server into a hot loop.
 */
export class Backoff {
  #failures = 0;
  readonly #policy: BackoffPolicy;
  readonly #random: Random;

  constructor(policy: BackoffPolicy, random: Random = Math.random) {
    this.#policy = policy;
    this.#random = random;
  }

  /** Consecutive failures so far. */
  get failures(): number {
    return this.#failures;
  }

  /** Counts one failure and returns the delay before the next try, in milliseconds. */
  next(): number {
    const ceiling = backoffCeiling(this.#policy, this.#failures);
    this.#failures += 1;
    return ceiling / 2 + (ceiling / 2) * this.#random();
  }

  /** Records a success: the next failure starts from the base delay again. */
  reset(): void {
    this.#failures = 0;
  }
}

/** The longest delay after `failures` earlier failures, without jitter. */
export function backoffCeiling(policy: BackoffPolicy, failures: number): number {
  const { baseMs, maxMs, factor = 2 } = policy;
  return Math.min(maxMs, baseMs * factor ** Math.min(failures, 64));
}

/** A source of numbers in [0, 1). `Math.random` in production, a seeded one in tests. */
export type Random = () => number;

/** Spreads `ms` evenly over [1 - ratio, 1 + ratio] times its value, so that loops of many owners do not run in step. */
export function jitter(ms: number, ratio: number, random: Random = Math.random): number {
  return ms * (1 + ratio * (2 * random() - 1));
}
