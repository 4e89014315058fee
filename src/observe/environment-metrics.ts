import { Counter, Gauge, Histogram } from "prom-client";
import type { Metrics } from "./metrics.ts";

/** The labels that name one Environment. */
export interface EnvironmentLabels {
  readonly namespace: string;
  readonly environment: string;
}

/**
 * Starts the counters of an Environment at 0, so that the first event is an increase and not the birth of a series,
 * which `rate()` does not see. Changes nothing that counts already. Gauges are left out: what was not read is not 0.
 * @param endReasons the values that `berth_sessions_ended_total` may have.
 */
export function startEnvironmentMetrics(
  metrics: Metrics,
  labels: EnvironmentLabels,
  endReasons: readonly string[],
): void {
  const own = { namespace: labels.namespace, environment: labels.environment };
  for (const metric of perEnvironment(metrics)) {
    const isWhole = labelNamesOf(metric).length === Object.keys(own).length;
    if (metric instanceof Counter && isWhole) metric.inc(own, 0);
  }
  for (const reason of endReasons) metrics.sessionsEnded.inc({ ...own, reason }, 0);
}

/**
 * Removes every series of an Environment. Call it when its loops have ended, here or with the Lease: the last value of
 * a gauge would otherwise be shown, and alerted on, for as long as the process lives.
 */
export async function forgetEnvironmentMetrics(metrics: Metrics, labels: EnvironmentLabels): Promise<void> {
  for (const metric of perEnvironment(metrics)) {
    const names = labelNamesOf(metric);
    const { values } = await metric.get();
    for (const { labels: found } of values) {
      if (found.namespace !== labels.namespace || found.environment !== labels.environment) continue;
      // A histogram's values bear the bucket's bound besides the labels that name the series.
      metric.remove(Object.fromEntries(names.map((name) => [name, found[name] ?? ""])));
    }
  }
}

type LabelledMetric = Counter<string> | Gauge<string> | Histogram<string>;

function perEnvironment(metrics: Metrics): LabelledMetric[] {
  return Object.values(metrics).filter((metric): metric is LabelledMetric => {
    if (!(metric instanceof Counter || metric instanceof Gauge || metric instanceof Histogram)) return false;
    const names = labelNamesOf(metric);
    return names.includes("namespace") && names.includes("environment");
  });
}

/** prom-client keeps the names on the metric; its types leave them out. */
function labelNamesOf(metric: object): readonly string[] {
  return "labelNames" in metric && Array.isArray(metric.labelNames) ? metric.labelNames.map(String) : [];
}
