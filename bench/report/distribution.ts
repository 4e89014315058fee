import { type Distribution, distribution } from "../../simulator/report.ts";

/** Returns zeros if there are no values. */
export function quantiles(values: readonly number[]): Pick<Distribution, "p50" | "p90" | "p99" | "max"> {
  return distribution(values) ?? { p50: 0, p90: 0, p99: 0, max: 0 };
}

/** Returns the nearest-rank quantile, or 0 if there are no values. */
export function quantile(values: readonly number[], q: number): number {
  return values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(q * values.length) - 1)] ?? 0;
}

export const DISTRIBUTION_COLUMNS = ["items", "p50", "p90", "p99", "max"];

/** Returns the cells for DISTRIBUTION_COLUMNS. Percentiles use the nearest rank. */
export function distributionCells(values: readonly number[]): number[] {
  const { p50, p90, p99, max } = quantiles(values);
  return [values.length, p50, p90, p99, max];
}
