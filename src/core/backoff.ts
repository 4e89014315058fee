/** The shape of a backoff, in milliseconds. */
export interface BackoffPolicy {
  readonly baseMs: number;
  readonly maxMs: number;
  /** Growth per failure; 2 unless given. */
  readonly factor?: number;
  /** The share of each delay that is random; 0.5 unless given. */
  readonly spread?: number;
}

/**
 * Exponential backoff with "equal jitter": half of the delay is fixed, half is random. Full jitter could return 0,
 * which turns a failing server into a hot loop.
 */
export class Backoff {
  #failures = 0;
  #untilMs = Number.NEGATIVE_INFINITY;
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
    this.#failures += 1;
    return backoffDelay(this.#policy, this.#failures, this.#random);
  }

  /** Counts one failure at `nowMs`, and sets when the next try is due. */
  postpone(nowMs: number, { leastMs = 0, mostMs = Number.POSITIVE_INFINITY } = {}): void {
    this.#untilMs = nowMs + Math.min(mostMs, Math.max(leastMs, this.next()));
  }

  /** When the next try is due (monotonic); negative infinity: `postpone` was not called since the last success. */
  get untilMs(): number {
    return this.#untilMs;
  }

  /** Records a success: the next failure starts from the base delay again. The next try is due now. */
  reset(dueMs = Number.NEGATIVE_INFINITY): void {
    this.#failures = 0;
    this.#untilMs = dueMs;
  }
}

/** The longest delay after `failures` earlier failures, without jitter. */
export function backoffCeiling(policy: BackoffPolicy, failures: number): number {
  const { baseMs, maxMs, factor = 2 } = policy;
  return Math.min(maxMs, baseMs * factor ** Math.min(failures, 64));
}

/** The delay after the last of `failures` failures. */
export function backoffDelay(policy: BackoffPolicy, failures: number, random: Random): number {
  const { spread = 0.5 } = policy;
  return backoffCeiling(policy, failures - 1) * (1 - spread + spread * random());
}

/** A source of numbers in [0, 1). `Math.random` in production, a seeded one in tests. */
export type Random = () => number;

/** Spreads `ms` evenly over [1 - ratio, 1 + ratio] times its value, so that loops of many owners do not run in step. */
export function jitter(ms: number, ratio: number, random: Random = Math.random): number {
  return ms * (1 + ratio * (2 * random() - 1));
}
