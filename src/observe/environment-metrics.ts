import { Histogram } from "prom-client";
import { ENVIRONMENT, type Metrics } from "./metrics.ts";
import { EnvironmentCounter, EnvironmentGauge } from "./other-labels.ts";

/** The labels that identify one Environment. */
export interface EnvironmentLabels {
  readonly namespace: string;
  readonly environment: string;
}

/**
 * Starts the counters of an Environment at 0, because `rate()` does not count the first sample of a new series.
 * Existing values do not change. Gauges are left out: an unknown value is not 0.
 * @param endReasons the values of the label `reason` of `berth_sessions_ended_total`.
 */
export function startEnvironmentMetrics(
  metrics: Metrics,
  labels: EnvironmentLabels,
  endReasons: readonly string[],
): void {
  const own = { namespace: labels.namespace, environment: labels.environment };
  for (const metric of perEnvironment(metrics)) {
    const isWhole = labelNamesOf(metric).length === ENVIRONMENT.length;
    if (metric instanceof EnvironmentCounter && isWhole) metric.inc(own, 0);
  }
  for (const reason of endReasons) metrics.sessionsEnded.inc({ ...own, reason }, 0);
}

/**
 * Removes every series of an Environment. The time does not depend on the number of other Environments. Call it when
 * the Environment's loops have ended, also after losing the Lease. Otherwise the last value of a gauge stays, and
 * triggers alerts, as long as the process lives.
 */
export function forgetEnvironmentMetrics(metrics: Metrics, labels: EnvironmentLabels): void {
  const own = { namespace: labels.namespace, environment: labels.environment };
  for (const metric of perEnvironment(metrics)) {
    if (metric instanceof Histogram) metric.remove(own);
    else for (const others of metric.others) metric.remove({ ...own, ...others });
  }
}

type OfEnvironments = EnvironmentCounter<string> | EnvironmentGauge<string> | Histogram<string>;

function perEnvironment(metrics: Metrics): OfEnvironments[] {
  return Object.values(metrics).filter((metric): metric is OfEnvironments => {
    if (metric instanceof EnvironmentCounter || metric instanceof EnvironmentGauge) return true;
    return metric instanceof Histogram && ENVIRONMENT.every((name) => labelNamesOf(metric).includes(name));
  });
}

/** prom-client keeps the names on the metric, but its types omit them. */
function labelNamesOf(metric: object): readonly string[] {
  return "labelNames" in metric && Array.isArray(metric.labelNames) ? metric.labelNames.map(String) : [];
}
