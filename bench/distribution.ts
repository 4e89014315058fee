import { type Distribution, distribution } from "../simulator/report.ts";

/** Zeros where nothing was measured. */
export function quantiles(values: readonly number[]): Pick<Distribution, "p50" | "p90" | "p99" | "max"> {
  return distribution(values) ?? { p50: 0, p90: 0, p99: 0, max: 0 };
}

/** One row of the table that a bench prints; milliseconds, percentiles by nearest rank. */
export function row(name: string, milliseconds: readonly number[]): string {
  const { p50, p90, p99, max } = quantiles(milliseconds);
  const cells = [p50, p90, p99, max].map((ms) => ms.toFixed(0).padStart(7));
  return `${name.padEnd(34)} ${String(milliseconds.length).padStart(5)} ${cells.join(" ")}`;
}

export const HEADER = `${"milliseconds".padEnd(34)} ${"count".padStart(5)} ${["p50", "p90", "p99", "max"].map((name) => name.padStart(7)).join(" ")}`;
