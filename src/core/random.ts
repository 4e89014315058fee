/** A source of numbers in [0, 1). `Math.random` in production, a seeded one in tests. */
export type Random = () => number;

/** Spreads `ms` evenly over [1 - ratio, 1 + ratio] times its value, so that loops of many owners do not march in step. */
export function jitter(ms: number, ratio: number, random: Random = Math.random): number {
  return ms * (1 + ratio * (2 * random() - 1));
}
