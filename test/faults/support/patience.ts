/**
 * Limit of a wait for one event on a shared machine. It is far longer than an operator's start, an expiring Lease, or a
 * Work API lease that lapses twice, so a test fails only if the event never happens.
 */
export const PATIENCE_MS = 240_000;
