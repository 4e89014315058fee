import type { ConditionReason } from "../api/condition-reasons.ts";
import { type ConditionUpdate, conditionFor } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { FINALIZER } from "../api/names.ts";
import type { RuntimeReport } from "../api/runtime.ts";
import { environmentStatus } from "../api/status.ts";
import { deleteClaimSecrets } from "../claims/claim-lists.ts";
import type { Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import type { EventSubject } from "../kube/events.ts";
import type { KubeObject } from "../kube/resource.ts";
import { forgetEnvironmentMetrics } from "../observe/environment-metrics.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Announce } from "../protocol/context.ts";
import type { EnvironmentObserver } from "./environment-runtime.ts";
import { EnvironmentFinalizer } from "./finalizer.ts";
import { StatusWriter } from "./status-writer.ts";

export interface UnservedOptions {
  readonly kube: KubeClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Timing;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly points: (environment: string) => Points;
  readonly announcer: (about: Pick<EventSubject, "metadata">) => Announce;
  readonly observer?: EnvironmentObserver;
}

/**
 * Reports Environments whose spec can't be parsed, so that no loop serves them. Their status says why, and nothing
 * blocks their deletion.
 */
export class UnservedEnvironments {
  readonly #options: UnservedOptions;
  readonly #writers = new Map<string, { readonly uid: string; readonly writer: StatusWriter }>();

  constructor(options: UnservedOptions) {
    this.#options = options;
  }

  /**
   * Returns the milliseconds until the rest may be written; null: nothing is left.
   * @param served the status writer, if the Environment's loops still run
   */
  async report(
    raw: KubeObject,
    reason: ConditionReason,
    message: string,
    served?: StatusWriter,
  ): Promise<number | null> {
    const { namespace = "", name = "", generation = 0 } = raw.metadata;
    const conditions = [conditionFor(reason, message, generation)];
    gaugeConditions(this.#options.metrics, { namespace, environment: name }, conditions);
    this.#options.observer?.cannotServe(`${namespace}/${name}`, { ...modeAndMax(raw), conditions });
    const writer = served ?? this.#writerOf(raw);
    const restMs = await writer.write({ generation, ...modeAndMax(raw), conditions, queue: null, sessions: null });
    if (!served) await this.#release(raw);
    return restMs;
  }

  /** Forgets an Environment that was deleted (`gone`) or is served now. */
  forget(key: string, gone: boolean): void {
    // `report` also tells the observer about Environments with loops, which have no writer here.
    if (gone) this.#options.observer?.cannotServe(key, null);
    if (!this.#writers.delete(key) || !gone) return;
    const [namespace = "", environment = ""] = key.split("/");
    forgetEnvironmentMetrics(this.#options.metrics, { namespace, environment });
  }

  #writerOf(raw: KubeObject): StatusWriter {
    const { namespace = "", name = "", uid = "" } = raw.metadata;
    const key = `${namespace}/${name}`;
    const known = this.#writers.get(key);
    if (known?.uid === uid) return known.writer;
    const { points, logger, announcer } = this.#options;
    const found = environmentStatus.safeParse(raw.status);
    const writer = new StatusWriter({
      ...this.#options,
      ref: { namespace, name, uid },
      points: points(key),
      logger: logger.child({ namespace, environment: name }),
      announce: announcer(raw),
      found: found.success ? found.data : undefined,
    });
    this.#writers.set(key, { uid, writer });
    return writer;
  }

  /**
   * No loop holds this Environment: removes the finalizer that an earlier process left, and deletes its claim Secrets.
   */
  async #release(raw: KubeObject): Promise<void> {
    const { namespace = "", name = "", uid = "", finalizers, deletionTimestamp } = raw.metadata;
    if (!deletionTimestamp || !finalizers?.includes(FINALIZER)) return;
    const { kube } = this.#options;
    const points = this.#options.points(`${namespace}/${name}`);
    const overMs = Date.parse(deletionTimestamp) + this.#options.timing.drainBoundMs - kube.now();
    await deleteClaimSecrets(kube, { namespace, name }, points).catch((error: unknown) => {
      // Nothing may block a deletion forever.
      if (overMs > 0) throw error;
    });
    await new EnvironmentFinalizer({ kube, points, namespace, name, uid }).release(() => true);
  }
}

/** Mode and maximum, as far as an invalid spec shows them. */
function modeAndMax(raw: KubeObject): { mode: "Sessions" | "Workers"; max: number } {
  const { spec } = raw as { spec?: { sessions?: unknown; workers?: unknown } };
  if (spec?.workers !== undefined) return { mode: "Workers", max: countOf(spec.workers, "maxReplicas") };
  return { mode: "Sessions", max: countOf(spec?.sessions, "maxConcurrent") };
}

function countOf(part: unknown, field: string): number {
  const value: unknown = typeof part === "object" && part !== null ? Reflect.get(part, field) : undefined;
  return Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) <= MAX_INT32 ? Number(value) : 0;
}

/** The largest number that the status schema accepts. */
const MAX_INT32 = 2 ** 31 - 1;

const CONDITION_VALUE = { True: 1, False: 0, Unknown: -1 } as const;

/** Sets an Environment's gauges to what its status says. */
export function gaugeEnvironment(
  metrics: Metrics,
  environment: Environment,
  report: RuntimeReport,
  conditions: readonly ConditionUpdate[],
): void {
  const labels = { namespace: environment.metadata.namespace, environment: environment.metadata.name };
  const { sessions, workers } = report;
  if (sessions) {
    for (const [phase, count] of Object.entries(sessions)) metrics.sessions.set({ ...labels, phase }, count ?? 0);
    metrics.sessionsMax.set(labels, environment.spec.sessions?.maxConcurrent ?? 0);
    const isFailing = conditions.some(({ reason }) => reason === "StartsFailing");
    metrics.startsFailing.set(labels, isFailing ? 1 : 0);
  }
  if (report.workspaces) metrics.workspaces.set(labels, report.workspaces.volumes);
  if (workers) {
    metrics.workersMax.set(labels, environment.spec.workers?.maxReplicas ?? 0);
    metrics.workersDesired.set(labels, workers.desired);
    metrics.workersReplicas.set(labels, workers.replicas);
    metrics.workersReady.set(labels, workers.ready);
    metrics.workersBusy.set(labels, workers.busy);
  }
  gaugeConditions(metrics, labels, conditions);
}

/** Sets the condition gauges, which unserved Environments have too. */
export function gaugeConditions(
  metrics: Metrics,
  labels: { readonly namespace: string; readonly environment: string },
  conditions: readonly ConditionUpdate[],
): void {
  for (const { type, status } of conditions) {
    metrics.environmentCondition.set({ ...labels, type }, CONDITION_VALUE[status]);
  }
}
