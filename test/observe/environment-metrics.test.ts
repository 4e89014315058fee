import { expect, test } from "vitest";
import { forgetEnvironmentMetrics, startEnvironmentMetrics } from "../../src/observe/environment-metrics.ts";
import { createMetrics, type Metrics } from "../../src/observe/metrics.ts";

const RESEARCH = { namespace: "agents", environment: "research" };
const SUPPORT = { namespace: "agents", environment: "support" };
const SAME_NAME = { namespace: "other", environment: "research" };

/** The lines of a scrape that name an Environment. */
async function series(metrics: Metrics, { namespace, environment }: typeof RESEARCH): Promise<string[]> {
  const text = await metrics.registry.metrics();
  return text
    .split("\n")
    .filter((line) => line.includes(`namespace="${namespace}"`) && line.includes(`environment="${environment}"`));
}

function use(metrics: Metrics, labels: typeof RESEARCH): void {
  startEnvironmentMetrics(metrics, labels, ["Completed", "Failed"]);
  metrics.queueDepth.set(labels, 3);
  metrics.sessions.set({ ...labels, phase: "warm" }, 2);
  metrics.sessions.set({ ...labels, phase: "running" }, 1);
  metrics.acks.inc({ ...labels, result: "accepted" });
  metrics.queuedToOpened.observe(labels, 0.2);
}

test("counters of an Environment start at 0, gauges do not", async () => {
  const metrics = createMetrics();
  startEnvironmentMetrics(metrics, RESEARCH, ["Completed", "Failed"]);
  const lines = await series(metrics, RESEARCH);
  const labels = 'namespace="agents",environment="research"';
  expect(lines).toContain(`berth_pods_created_total{${labels}} 0`);
  for (const reason of ["Completed", "Failed"]) {
    expect(lines).toContain(`berth_sessions_ended_total{${labels},reason="${reason}"} 0`);
  }
  expect(lines.filter((line) => line.startsWith("berth_queue_"))).toEqual([]);
});

test("starting twice resets nothing", async () => {
  const metrics = createMetrics();
  use(metrics, RESEARCH);
  metrics.podsCreated.inc(RESEARCH, 5);
  metrics.sessionsEnded.inc({ ...RESEARCH, reason: "Completed" }, 2);
  startEnvironmentMetrics(metrics, RESEARCH, ["Completed"]);
  const lines = await series(metrics, RESEARCH);
  expect(lines).toContain('berth_pods_created_total{namespace="agents",environment="research"} 5');
  expect(lines).toContain('berth_sessions_ended_total{namespace="agents",environment="research",reason="Completed"} 2');
});

test("forgetting an Environment removes all its series and no others", async () => {
  const metrics = createMetrics();
  for (const labels of [RESEARCH, SUPPORT, SAME_NAME]) use(metrics, labels);
  metrics.leader.set({ lease: "berth" }, 1);
  const others = async () => [...(await series(metrics, SUPPORT)), ...(await series(metrics, SAME_NAME))];
  const before = await others();
  forgetEnvironmentMetrics(metrics, RESEARCH);
  expect(await series(metrics, RESEARCH)).toEqual([]);
  expect(await others()).toEqual(before);
  expect(await metrics.registry.metrics()).toContain('berth_leader{lease="berth"} 1');
  forgetEnvironmentMetrics(metrics, RESEARCH);
});

test("forgetting an Environment visits only its own series, however many others there are", () => {
  const metrics = createMetrics();
  use(metrics, RESEARCH);
  for (let at = 0; at < 100; at += 1) use(metrics, { namespace: "agents", environment: `other-${at}` });
  const removed: unknown[] = [];
  for (const metric of Object.values(metrics)) {
    if (!("remove" in metric)) continue;
    const remove = metric.remove.bind(metric) as (labels: object) => void;
    const noted = (labels: object) => {
      removed.push(labels);
      remove(labels);
    };
    Object.assign(metric, { remove: noted, get: () => Promise.reject(new Error("a look at all series")) });
  }
  forgetEnvironmentMetrics(metrics, RESEARCH);
  expect(removed).toContainEqual({ ...RESEARCH, phase: "warm" });
  expect(removed.length).toBeLessThan(2 * Object.keys(metrics).length);
});
