import { expect, test } from "vitest";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { observeProcess } from "../../src/observe/process.ts";

/** The lag by quantile, collected by a scrape. */
async function scrapedLag(metrics: Metrics): Promise<Map<string, number>> {
  const { values } = await metrics.eventLoopLag.get();
  return new Map(values.map(({ labels, value }) => [String(labels.quantile), value]));
}

/** Lets timers and the sampling run: each turn is one timer of the loop. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("build info shows the running version", async () => {
  const metrics = createMetrics();
  using _ = observeProcess(metrics, { version: "1.2.3" });
  expect(await metrics.registry.metrics()).toContain(
    `berth_build_info{version="1.2.3",node="${process.versions.node}"} 1\n`,
  );
});

test("the process's own metrics exist", async () => {
  const metrics = createMetrics();
  using _ = observeProcess(metrics, { version: "1.2.3" });
  const text = await metrics.registry.metrics();
  for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes", "nodejs_gc_duration_seconds"]) {
    expect(text).toContain(name);
  }
});

test("a stall of the event loop appears in the next scrape and not in the one after", async () => {
  const metrics = createMetrics();
  using _ = observeProcess(metrics, { version: "1.2.3" });
  await turns(4);
  const until = performance.now() + 250;
  while (performance.now() < until);
  await turns(4);
  const stalled = await scrapedLag(metrics);
  expect(stalled.get("1")).toBeGreaterThan(0.2);
  const next = await scrapedLag(metrics);
  // There is no turn of the loop between the two scrapes, and so no lag.
  expect(Object.fromEntries(next)).toEqual({ "0.5": 0, "0.9": 0, "0.99": 0, "1": 0 });
});
