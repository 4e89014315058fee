import { collectDefaultMetrics } from "prom-client";
import type { Metrics } from "./metrics.ts";

/** Gauges of prom-client with a counter's name. Each is the sum of the gauge without the suffix. */
const SUMS = ["nodejs_active_handles_total", "nodejs_active_requests_total", "nodejs_active_resources_total"];

/** Registers the metrics of the process: build info, and prom-client's own process_ and nodejs_ metrics. */
export function observeProcess(metrics: Metrics, build: { readonly version: string }): void {
  metrics.buildInfo.set({ version: build.version, node: process.versions.node }, 1);
  collectDefaultMetrics({ register: metrics.registry });
  for (const name of SUMS) metrics.registry.removeSingleMetric(name);
}
