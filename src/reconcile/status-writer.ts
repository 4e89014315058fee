import { type ConditionReason, eventType, REASONS } from "../api/condition-reasons.ts";
import { isGood } from "../api/condition-types.ts";
import { type Condition, type ConditionUpdate, ownConditions, setCondition, withKstatus } from "../api/conditions.ts";
import type { EnvironmentStatus } from "../api/environment.ts";
import type { RuntimeReport } from "../api/runtime.ts";
import type { Random } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import { isNotFound, KubeApiError } from "../kube/errors.ts";
import { apiTime } from "../kube/objects.ts";
import type { Logger } from "../observe/logger.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Announce } from "../protocol/context.ts";
import { afterFailure, isReported } from "../protocol/failing-steps.ts";
import type { FailingStep } from "../protocol/tracked-steps.ts";
import { ENVIRONMENTS } from "./finalizer.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

/**
 * Changed counts and messages are written this long after they began to change, and so at most this often. The changes
 * of one session start become one write, and a change that is undone in time becomes none. A turned condition is
 * written at once.
 */
export const COUNTS_EVERY_MS = 5_000;

/** The inputs of a status. */
export interface StatusParts {
  readonly generation: number;
  readonly mode: "Sessions" | "Workers";
  readonly max: number;
  readonly conditions: readonly ConditionUpdate[];
  /** What a ready Environment still does, for `Reconciling`; null or absent: nothing. */
  readonly unfinished?: RuntimeReport["firstPod"];
  /** Null: not read; the status keeps the last value. */
  readonly queue: EnvironmentStatus["queue"] | null;
  readonly sessions: EnvironmentStatus["sessions"] | null;
  readonly parking?: EnvironmentStatus["parking"];
  readonly sleep?: EnvironmentStatus["sleep"];
  readonly workers?: EnvironmentStatus["workers"];
  /** Omitted: not counted; the status keeps the last count. */
  readonly workspaces?: EnvironmentStatus["workspaces"];
}

/** The object that the status belongs to. */
export interface StatusRef {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

export interface StatusWriterOptions {
  readonly kube: KubeClient;
  readonly ref: StatusRef;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly random: Random;
  readonly timing: Timing;
  readonly metrics: Pick<Metrics, "failingSteps">;
  /** With the Environment's names. */
  readonly logger: Logger;
  readonly announce: Announce;
  /** The status when the loops were created. */
  readonly found: EnvironmentStatus | undefined;
}

/**
 * Writes the status of one Environment as one merge patch: at once when something changes that a person would act on,
 * and counts at a limited rate. It never writes on a schedule. A turned condition also becomes one Event. Refused writes
 * are retried with backoff, and a lasting refusal is reported by one Event, the log and a metric: `Ready` can't tell.
 */
export class StatusWriter {
  readonly #options: Omit<StatusWriterOptions, "found">;
  #written: EnvironmentStatus | null;
  /**
   * The last composed status that matched the written one, as text. Most compositions are the same, and comparing text
   * is cheap.
   */
  #writtenText: string | null = null;
  /** The written status as `canonical` returns it; null: not computed since it was written. */
  #writtenCanonical: string | null = null;
  /** Since when (monotonic) there is an unwritten change; null: there is none. */
  #newSinceMs: number | null = null;
  /** The status of the last Events about conditions: the written one, unless writes are refused. */
  #announced: EnvironmentStatus | null;
  /** The failure of the last writes; null: the last one succeeded. */
  #failing: FailingStep | null = null;
  #isFailureReported = false;
  /** The conditions that the log has, by type. */
  readonly #logged = new Map<string, Condition>();
  /** Conditions with a Warning Event that no Event about recovery has followed yet. */
  readonly #warned = new Set<string>();

  constructor({ found, ...options }: StatusWriterOptions) {
    this.#options = options;
    this.#written = found ?? null;
    this.#announced = this.#written;
    for (const condition of ownConditions(found?.conditions))
      if (isWarning(condition)) this.#warned.add(condition.type);
  }

  /** Writes what changed. Returns the milliseconds until the rest may be written; null: nothing is left. */
  async write(parts: StatusParts): Promise<number | null> {
    const status = this.#compose(parts);
    const text = JSON.stringify(status);
    // After a refusal, only a write shows that writes are possible again.
    if (this.#failing === null && (text === this.#writtenText || this.#isWritten(status))) {
      if (this.#writtenText === null) this.#logTurned(status);
      this.#writtenText = text;
      this.#newSinceMs = null;
      return null;
    }
    const nowMs = this.#options.clock.monotonic();
    this.#newSinceMs ??= nowMs;
    const waitMs = (this.#failing?.untilMs ?? this.#newSinceMs + COUNTS_EVERY_MS) - nowMs;
    if (waitMs > 0 && (this.#failing !== null || !turned(status, this.#written))) return waitMs;
    const { kube, points, ref } = this.#options;
    const { namespace, name, uid } = ref;
    // With the uid, the patch can't change another object of the same name.
    const patch = { metadata: { uid }, status: withRemovals(status, this.#written) };
    try {
      await points.run("reconcile.write-status", {}, () =>
        kube.patch(ENVIRONMENTS, { namespace, name }, patch, { type: "merge", subresource: "status" }),
      );
    } catch (error) {
      if (isNotFound(error)) return null;
      if (!(error instanceof KubeApiError)) throw error;
      return this.#refused(error, status);
    }
    this.#succeeded();
    this.#logTurned(status);
    this.#announceTurned(status);
    this.#written = status;
    this.#writtenText = text;
    this.#writtenCanonical = null;
    this.#newSinceMs = null;
    return null;
  }

  /**
   * Returns the milliseconds until the next try. A conflict may come from a new object of the same name that the watch
   * does not show yet, so it is reported only if it lasts.
   */
  #refused(error: unknown, status: EnvironmentStatus): number {
    const { clock, logger, announce, timing } = this.#options;
    const nowMs = clock.monotonic();
    this.#failing = afterFailure(this.#failing ?? undefined, "status", { error }, nowMs, this.#options);
    logger.warn({ error: errorText(error) }, "cannot write the status");
    if (isReported(this.#failing, nowMs, timing)) {
      if (!this.#isFailureReported) announce("StatusOutdated", this.#failing.message);
      this.#setFailureReported(true);
      this.#logTurned(status);
      this.#announceTurned(status);
    }
    return this.#failing.untilMs - nowMs;
  }

  #succeeded(): void {
    this.#failing = null;
    if (this.#isFailureReported) this.#setFailureReported(false);
  }

  #setFailureReported(isFailureReported: boolean): void {
    this.#isFailureReported = isFailureReported;
    const { metrics, ref } = this.#options;
    const labels = { namespace: ref.namespace, environment: ref.name, step: "status" };
    metrics.failingSteps.set(labels, isFailureReported ? 1 : 0);
  }

  #isWritten(status: EnvironmentStatus): boolean {
    if (this.#written === null) return false;
    this.#writtenCanonical ??= canonical(this.#written);
    return canonical(status) === this.#writtenCanonical;
  }

  #compose(parts: StatusParts): EnvironmentStatus {
    const nowIso = apiTime(this.#options.clock.now());
    let conditions: Condition[] = [...(this.#written?.conditions ?? [])];
    for (const update of parts.conditions) conditions = setCondition(conditions, update, nowIso);
    return {
      observedGeneration: parts.generation,
      mode: parts.mode,
      max: parts.max,
      conditions: withKstatus(conditions, nowIso, parts.unfinished),
      ...(parts.queue ? { queue: parts.queue } : this.#written?.queue ? { queue: this.#written.queue } : {}),
      ...(parts.sessions ? { sessions: parts.sessions } : {}),
      ...(parts.parking ? { parking: parts.parking } : {}),
      ...(parts.sleep ? { sleep: parts.sleep } : {}),
      ...(parts.workers ? { workers: parts.workers } : {}),
      ...workspacesOf(parts.workspaces ?? this.#written?.workspaces),
    };
  }

  /** Logs each condition that turned. A new process also logs the faults that an earlier one wrote. */
  #logTurned({ conditions }: EnvironmentStatus): void {
    for (const condition of ownConditions(conditions)) {
      const { type, status, reason, message } = condition;
      const old = this.#logged.get(type);
      this.#logged.set(type, condition);
      if (old?.reason === reason && old.status === status) continue;
      const fields = { condition: type, status, reason };
      this.#options.logger[logLevel(condition, old)](fields, `${type}=${status} ${reason}: ${message}`);
    }
  }

  /** Announces each condition that turned, except those that are good from the start. */
  #announceTurned(status: EnvironmentStatus): void {
    const { announce } = this.#options;
    const before = this.#announced;
    this.#announced = status;
    for (const condition of ownConditions(status.conditions)) {
      const old = before?.conditions?.find(({ type }) => type === condition.type);
      if (old?.reason === condition.reason) continue;
      // `Ready` usually repeats another condition. Announce it only for its own reasons.
      if (isReady(condition) && !(isOwn(condition) && (!isGood(condition) || !old || isOwn(old)))) continue;
      if (this.#needsEvent(condition, old)) announce(condition.reason as ConditionReason, condition.message);
    }
  }

  #needsEvent(condition: Condition, old: Condition | undefined): boolean {
    if (isWarning(condition)) {
      this.#warned.add(condition.type);
      return true;
    }
    if (condition.status === "Unknown") return false;
    if (!isGood(condition)) return true;
    const wasWarned = this.#warned.delete(condition.type);
    return wasWarned || (old !== undefined && old.status !== "Unknown" && !isGood(old));
  }
}

function workspacesOf(workspaces: EnvironmentStatus["workspaces"]): Pick<EnvironmentStatus, "workspaces"> {
  return workspaces ? { workspaces } : {};
}

/** The end of a fault is as important as the fault. Of conditions that were never bad, only `Ready` is. */
function logLevel(condition: Condition, old: Condition | undefined): "warn" | "info" | "debug" {
  if (isWarning(condition)) return "warn";
  if (!isGood(condition)) return condition.status === "Unknown" ? "debug" : "info";
  const wasBad = old !== undefined && (isWarning(old) || (!isGood(old) && old.status !== "Unknown"));
  return wasBad || (isReady(condition) && old?.status !== condition.status) ? "info" : "debug";
}

function isReady({ type }: Pick<Condition, "type">): boolean {
  return type === "Ready";
}

/** Whether the reason belongs to `Ready` itself. */
function isOwn({ reason }: Condition): boolean {
  return Object.hasOwn(REASONS, reason) && REASONS[reason as ConditionReason].type === "Ready";
}

/** A good status can be a warning too: AcceptedWithWarning. */
function isWarning({ reason }: Condition): boolean {
  return Object.hasOwn(REASONS, reason) && eventType(reason as ConditionReason) === "Warning";
}

/**
 * Whether something changed that a person would act on: the status or reason of a condition, or the generation. A
 * change from one good reason to another (AtMaximum, Available) does not count: an Environment near its maximum changes
 * all day.
 */
function turned(status: EnvironmentStatus, before: EnvironmentStatus | null): boolean {
  const essence = (of: EnvironmentStatus | null) =>
    JSON.stringify([
      of?.observedGeneration,
      of?.parking?.failure,
      of?.sleep?.failure,
      (of?.conditions ?? []).map((condition) => [
        condition.type,
        condition.status,
        isGood(condition) && !isWarning(condition) ? "" : condition.reason,
      ]),
    ]);
  return essence(status) !== essence(before);
}

/** The status as text with sorted keys, because the API server returns them in another order. */
function canonical(status: EnvironmentStatus): string {
  return JSON.stringify(sorted(status));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, part]) => [key, sorted(part)]),
  );
}

/** Parts of a status with fields that can disappear while the part stays. */
const WITH_OPTIONAL_FIELDS = ["queue", "parking", "sleep"] as const;

/** Sets removed fields to null, because a merge patch keeps what it does not name. */
function withRemovals(status: EnvironmentStatus, before: EnvironmentStatus | null): Record<string, unknown> {
  const patch: Record<string, unknown> = { ...removals(status, before ?? {}), ...status };
  for (const part of WITH_OPTIONAL_FIELDS) {
    const [after, earlier] = [status[part], before?.[part]];
    if (after && earlier) patch[part] = { ...removals(after, earlier), ...after };
  }
  return patch;
}

function removals(after: object, before: object): Record<string, null> {
  const gone = Object.keys(before).filter((key) => !Object.hasOwn(after, key));
  return Object.fromEntries(gone.map((key) => [key, null]));
}
