import type { Counter, Gauge } from "prom-client";

/** The sum of all series of a counter or gauge with these labels. */
export async function metricValue<L extends string>(
  metric: Counter<L> | Gauge<L>,
  labels: Partial<Record<L, string>>,
): Promise<number> {
  const { values } = await metric.get();
  const own = Object.entries(labels) as [L, string][];
  return values
    .filter((series) => own.every(([name, value]) => series.labels[name] === value))
    .reduce((sum, { value }) => sum + value, 0);
}
