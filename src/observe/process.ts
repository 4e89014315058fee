import { monitorEventLoopDelay } from "node:perf_hooks";
import { collectDefaultMetrics } from "prom-client";
import type { Metrics } from "./metrics.ts";

/** Sampling interval of the event loop's delay. Node's samples include it, so it is subtracted from each. */
const RESOLUTION_MS = 10;
const QUANTILES = [0.5, 0.9, 0.99, 1] as const;
const NANOSECONDS = 1e9;

/**
 * Registers the metrics of the process: build info, event loop lag, and prom-client's own process_ and nodejs_ metrics.
 */
export function observeProcess(metrics: Metrics, build: { readonly version: string }): Disposable {
  metrics.buildInfo.set({ version: build.version, node: process.versions.node }, 1);
  collectDefaultMetrics({ register: metrics.registry });
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delays.enable();
  // Each scrape covers the time since the previous one, so that an old stall does not affect today's quantiles. Two
  // scrapers share the samples, so that a stall still appears in one of them.
  const collect = () => {
    for (const quantile of QUANTILES) {
      const seconds = delays.count === 0 ? 0 : delays.percentile(quantile * 100) / NANOSECONDS - RESOLUTION_MS / 1000;
      metrics.eventLoopLag.set({ quantile: String(quantile) }, Math.max(0, seconds));
    }
    delays.reset();
  };
  // prom-client calls `collect` of a metric at each scrape; its types accept it only as a constructor option.
  Object.assign(metrics.eventLoopLag, { collect });
  return { [Symbol.dispose]: () => void delays.disable() };
}
