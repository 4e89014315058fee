import { monitorEventLoopDelay } from "node:perf_hooks";
import { collectDefaultMetrics } from "prom-client";
import type { Metrics } from "./metrics.ts";

/** Sampling distance of the event loop's delay. Node's samples contain it, so it is taken off each. */
const RESOLUTION_MS = 10;
const QUANTILES = [0.5, 0.9, 0.99, 1] as const;
const NANOSECONDS = 1e9;

/** Fills the metrics about the process itself: build info, event loop lag, and prom-client's own process_ and nodejs_ ones. */
export function observeProcess(metrics: Metrics, build: { readonly version: string }): Disposable {
  metrics.buildInfo.set({ version: build.version, node: process.versions.node }, 1);
  collectDefaultMetrics({ register: metrics.registry });
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delays.enable();
  // Each scrape shows the time since the one before, so that a stall an hour ago does not colour today's quantiles.
  // With two scrapers each sees what passed since the other's: what matters, the stall, is seen by one of them.
  const collect = () => {
    for (const quantile of QUANTILES) {
      const seconds = delays.count === 0 ? 0 : delays.percentile(quantile * 100) / NANOSECONDS - RESOLUTION_MS / 1000;
      metrics.eventLoopLag.set({ quantile: String(quantile) }, Math.max(0, seconds));
    }
    delays.reset();
  };
  // prom-client calls a metric's own `collect` at each scrape; its types know it only as a constructor option.
  Object.assign(metrics.eventLoopLag, { collect });
  return { [Symbol.dispose]: () => void delays.disable() };
}
