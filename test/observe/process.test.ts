import { expect, test } from "vitest";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";
import { observeProcess } from "../../src/observe/process.ts";

/** The lag by quantile, collected as a scrape does. */
async function scrapedLag(metrics: Metrics): Promise<Map<string, number>> {
  const { values } = await metrics.eventLoopLag.get();
  return new Map(values.map(({ labels, value }) => [String(labels.quantile), value]));
}

/** Lets timers run, and with them the sampling: each turn is one timer of the loop. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("build info says what is running", async () => {
  const metrics = createMetrics();
  using _ = observeProcess(metrics, { version: "1.2.3" });
  expect(await metrics.registry.metrics()).toContain(
    `berth_build_info{version="1.2.3",node="${process.versions.node}"} 1\n`,
  );
});

test("the metrics of the process itself are there", async () => {
  const metrics = createMetrics();
  using _ = observeProcess(metrics, { version: "1.2.3" });
  const text = await metrics.registry.metrics();
  for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes", "nodejs_gc_duration_seconds"]) {
    expect(text).toContain(name);
  }
});

test("a stall of the event loop shows in the next scrape and not in the one after", async () => {
  const metrics = createMetrics();
  using _ = observeProcess(metrics, { version: "1.2.3" });
  await turns(4);
  const until = performance.now() + 250;
  while (performance.now() < until);
  await turns(4);
  const stalled = await scrapedLag(metrics);
  expect(stalled.get("1")).toBeGreaterThan(0.2);
  const next = await scrapedLag(metrics);
  // No turn of the loop lies between the two scrapes: there is nothing to show.
  expect(Object.fromEntries(next)).toEqual({ "0.5": 0, "0.9": 0, "0.99": 0, "1": 0 });
});
