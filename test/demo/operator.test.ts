import { expect, test } from "vitest";
import { countsOf, operatorEnv } from "../../demo/operator.ts";
import { createMetrics } from "../../src/observe/metrics.ts";

test("request counters are read from the real output of the metrics endpoint", async () => {
  const metrics = createMetrics();
  const text = await metrics.registry.metrics();
  // If these metrics are renamed, demo/operator.ts must change too.
  expect(text).toContain("berth_kube_api_requests_total");
  expect(text).toContain("berth_work_api_requests_total");
  const sample = [
    "# TYPE berth_kube_api_requests_total counter",
    'berth_kube_api_requests_total{verb="patch",resource="pods",code="200"} 6',
    'berth_kube_api_requests_total{verb="patch",resource="pods",code="409"} 1',
    'berth_kube_api_requests_total{verb="get",resource="pods",code="200"} 2',
    'berth_kube_api_requests_total{verb="list",resource="secrets",code="200"} 0',
    'berth_work_api_requests_total{call="poll",code="200"} 12',
    'berth_work_api_request_seconds_count{call="poll"} 12',
  ].join("\n");
  const { kube, work } = countsOf(sample);
  expect([...kube]).toEqual([
    ["patch pods", 7],
    ["get pods", 2],
  ]);
  expect([...work]).toEqual([["poll", 12]]);
});

test("the operator gets no Berth settings from the user's shell, and reaches the simulator without a proxy", () => {
  const env = operatorEnv({ PATH: "/bin", BERTH_LOG_LEVEL: "trace", HTTPS_PROXY: "http://proxy:1", no_proxy: "corp" });
  expect(env).toMatchObject({ PATH: "/bin", HTTPS_PROXY: "http://proxy:1", NO_PROXY: "corp,127.0.0.1,localhost" });
  expect(env.no_proxy).toBe(env.NO_PROXY);
  expect(Object.keys(env).filter((name) => name.startsWith("BERTH_"))).toEqual([]);
});
