import { expect, test } from "vitest";
import { conditionFor } from "../../src/api/conditions.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { gaugeConditions, gaugeEnvironment } from "../../src/reconcile/unserved.ts";
import { parsed, sessionsSpec, stored, workersSpec } from "../api/environments.ts";
import { metricValue } from "../support/metric-value.ts";

const labels = { namespace: "agents", environment: "research" };

test("gauges repeat the status: Pods by phase, the maximum, conditions as 1, 0 and -1", async () => {
  const metrics = createMetrics();
  const sessions = { warm: 2, preparing: 1, opening: 0, active: 3, stopping: 0, finished: 4 };
  const environment = parsed(stored(sessionsSpec({ maxConcurrent: 9 })));
  const own = { namespace: environment.metadata.namespace, environment: environment.metadata.name };
  gaugeEnvironment(metrics, environment, { queue: null, sessions, verdicts: [], blockedReason: null }, [
    conditionFor("Ready", "", 1),
    conditionFor("BreakerOpen", "", 1),
    conditionFor("KeyUnchecked", "", 1),
  ]);
  expect(await metricValue(metrics.sessions, { ...own, phase: "active" })).toBe(3);
  expect(await metricValue(metrics.sessionsMax, own)).toBe(9);
  expect(await metricValue(metrics.environmentCondition, { ...own, type: "Ready" })).toBe(1);
  expect(await metricValue(metrics.environmentCondition, { ...own, type: "SessionsStarting" })).toBe(0);
  expect(await metricValue(metrics.environmentCondition, { ...own, type: "Authenticated" })).toBe(-1);
  expect(await metricValue(metrics.breakerOpen, own)).toBe(1);
});

test("the breaker's gauge is reset when the breaker closes", async () => {
  const metrics = createMetrics();
  const report = {
    queue: null,
    sessions: { warm: 0, preparing: 0, opening: 0, active: 0, stopping: 0, finished: 0 },
    verdicts: [],
    blockedReason: null,
  };
  const environment = parsed(stored(sessionsSpec()));
  gaugeEnvironment(metrics, environment, report, [conditionFor("BreakerOpen", "", 1)]);
  gaugeEnvironment(metrics, environment, report, [conditionFor("Starting", "", 1)]);
  expect(await metricValue(metrics.breakerOpen, {})).toBe(0);
});

test("an unserved Environment has a Ready gauge for alerts", async () => {
  const metrics = createMetrics();
  gaugeConditions(metrics, labels, [conditionFor("InvalidSpec", "", 1)]);
  expect(await metricValue(metrics.environmentCondition, { ...labels, type: "Ready" })).toBe(0);
});

test("workers have their own gauges and no session series", async () => {
  const metrics = createMetrics();
  const environment = parsed(stored(workersSpec()));
  const workers = { desired: 4, replicas: 3, ready: 2, busy: 1 };
  gaugeEnvironment(
    metrics,
    environment,
    { queue: null, sessions: null, workers, verdicts: [], blockedReason: null },
    [],
  );
  const gauges = [metrics.workersDesired, metrics.workersReplicas, metrics.workersReady, metrics.workersBusy];
  expect(await Promise.all(gauges.map((gauge) => metricValue(gauge, {})))).toEqual([4, 3, 2, 1]);
  expect((await metrics.sessions.get()).values).toEqual([]);
  expect((await metrics.sessionsMax.get()).values).toEqual([]);
});
