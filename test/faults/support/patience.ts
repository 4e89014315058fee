/**
 * Bound of a wait for what happens once, on a machine that is shared: far more than an operator's start, a Lease that runs
 * out, or a lease of the Work API that lapses twice, so that only what never happens fails.
 */
export const PATIENCE_MS = 240_000;
