import { type Distribution, distribution } from "../../simulator/report.ts";

/** Zeros where nothing was measured. */
export function quantiles(values: readonly number[]): Pick<Distribution, "p50" | "p90" | "p99" | "max"> {
  return distribution(values) ?? { p50: 0, p90: 0, p99: 0, max: 0 };
}

export const DISTRIBUTION_COLUMNS = ["items", "p50", "p90", "p99", "max"];

/** The cells of DISTRIBUTION_COLUMNS; percentiles by nearest rank. */
export function distributionCells(values: readonly number[]): number[] {
  const { p50, p90, p99, max } = quantiles(values);
  return [values.length, p50, p90, p99, max];
}
