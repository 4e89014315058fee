import { expect, test } from "vitest";
import { createMetrics } from "../../src/observe/metrics.ts";
import { observeProcess } from "../../src/observe/process.ts";

test("build info shows the running version", async () => {
  const metrics = createMetrics();
  observeProcess(metrics, { version: "1.2.3" });
  expect(await metrics.registry.metrics()).toContain(
    `berth_build_info{version="1.2.3",node="${process.versions.node}"} 1\n`,
  );
});

test("the process's own metrics exist", async () => {
  const metrics = createMetrics();
  observeProcess(metrics, { version: "1.2.3" });
  const text = await metrics.registry.metrics();
  for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes", "nodejs_gc_duration_seconds"]) {
    expect(text).toContain(name);
  }
});
