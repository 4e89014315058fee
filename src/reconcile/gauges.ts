import type { ConditionUpdate } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { RuntimeReport } from "./environment-runtime.ts";

const CONDITION_VALUE = { True: 1, False: 0, Unknown: -1 } as const;

/** Sets the gauges of an Environment to what its status says. */
export function gaugeEnvironment(
  metrics: Metrics,
  environment: Environment,
  report: RuntimeReport,
  conditions: readonly ConditionUpdate[],
): void {
  const labels = { namespace: environment.metadata.namespace, environment: environment.metadata.name };
  const { sessions, workers } = report;
  if (sessions) {
    for (const [phase, count] of Object.entries(sessions)) metrics.sessions.set({ ...labels, phase }, count);
    metrics.sessionsMax.set(labels, environment.spec.sessions?.maxConcurrent ?? 0);
    const broken = conditions.some(({ reason }) => reason === "BreakerOpen");
    metrics.breakerOpen.set(labels, broken ? 1 : 0);
  }
  if (report.workspaces) metrics.workspaces.set(labels, report.workspaces.volumes);
  if (workers) {
    metrics.workersDesired.set(labels, workers.desired);
    metrics.workersReplicas.set(labels, workers.replicas);
    metrics.workersReady.set(labels, workers.ready);
    metrics.workersBusy.set(labels, workers.busy);
  }
  gaugeConditions(metrics, labels, conditions);
}

/** An Environment that is not served has conditions all the same. */
export function gaugeConditions(
  metrics: Metrics,
  labels: { readonly namespace: string; readonly environment: string },
  conditions: readonly ConditionUpdate[],
): void {
  for (const { type, status } of conditions) {
    metrics.environmentCondition.set({ ...labels, type }, CONDITION_VALUE[status]);
  }
}
