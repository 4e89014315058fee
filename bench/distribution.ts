/** Figures of a list of durations; all in the unit of the list. */
export interface Figures {
  readonly count: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** By nearest rank, as prom's and wrk's percentiles are read; zeros for an empty list. */
export function figures(values: readonly number[]): Figures {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { count: sorted.length, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: sorted.at(-1) ?? 0 };
}

/** One row of the table that a bench prints; milliseconds. */
export function row(name: string, of: Figures): string {
  const cells = [of.p50, of.p90, of.p99, of.max].map((ms) => ms.toFixed(0).padStart(7));
  return `${name.padEnd(34)} ${String(of.count).padStart(5)} ${cells.join(" ")}`;
}

export const HEADER = `${"milliseconds".padEnd(34)} ${"count".padStart(5)} ${["p50", "p90", "p99", "max"].map((name) => name.padStart(7)).join(" ")}`;
