import { type ConditionReason, eventType, REASONS } from "../api/condition-reasons.ts";
import { isGood } from "../api/condition-types.ts";
import { type Condition, type ConditionUpdate, setCondition } from "../api/conditions.ts";
import type { EnvironmentStatus } from "../api/environment.ts";
import type { Clock } from "../core/clock.ts";
import type { Points } from "../core/points.ts";
import type { KubeClient } from "../kube/client.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import type { Announce } from "../protocol/context.ts";
import { ENVIRONMENTS } from "./finalizer.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

/**
 * Counts and wordings are written so long after they began to change, and so at most so often: what a session changes as it
 * begins is one write, and what changed back by then is none. A condition that turns is written at once.
 */
export const COUNTS_EVERY_MS = 5_000;

/** Conflicts in a row that may be of another object of the same name, until the watch shows it. */
const CONFLICTS_IGNORED = 3;

/** What a status is made of. */
export interface StatusParts {
  readonly generation: number;
  readonly mode: "Sessions" | "Workers";
  readonly max: number;
  readonly conditions: readonly ConditionUpdate[];
  /** Null: not read; the last reading stays. */
  readonly queue: EnvironmentStatus["queue"] | null;
  readonly sessions: EnvironmentStatus["sessions"] | null;
  readonly workers?: EnvironmentStatus["workers"];
  /** Left out: not counted; the last count stays. */
  readonly workspaces?: EnvironmentStatus["workspaces"];
  /** Of an Environment that claims: the addresses that its claims may name. Left out: not known now; those of before stay. */
  readonly apiAddresses?: readonly string[];
}

/** Which object's status it is. */
export interface StatusRef {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/**
 * Writes the status of one Environment: one merge patch, when something that a person would act on changed, and counts
 * at a bounded pace; never by the clock. A turned condition is an Event too, once.
 */
export class StatusWriter {
  readonly #kube: KubeClient;
  readonly #ref: StatusRef;
  readonly #points: Points<ReconcilePoint>;
  readonly #clock: Clock;
  readonly #announce: Announce;
  #written: EnvironmentStatus | null;
  /** As it was composed here when it was last found to be, or made, what is written: most are composed just so again. */
  #writtenText: string | null = null;
  /** Since when (monotonic) there is something that was not written; null: there is nothing. */
  #newSinceMs: number | null = null;
  /** In a row. */
  #conflicts = 0;
  /** Conditions that somebody was warned about, until it is said that they are well again. */
  readonly #warned = new Set<string>();

  constructor(options: {
    kube: KubeClient;
    ref: StatusRef;
    points: Points<ReconcilePoint>;
    clock: Clock;
    announce: Announce;
    /** The status as it was found. */
    found: EnvironmentStatus | undefined;
  }) {
    this.#kube = options.kube;
    this.#ref = options.ref;
    this.#points = options.points;
    this.#clock = options.clock;
    this.#announce = options.announce;
    this.#written = options.found ?? null;
    for (const condition of this.#written?.conditions ?? []) if (isWarning(condition)) this.#warned.add(condition.type);
  }

  /** The addresses that claims may name, as the API server has them, or had them when the first reconcile began. */
  get apiAddresses(): readonly string[] {
    return this.#written?.apiAddresses ?? [];
  }

  /** Writes what is new. Returns in how many milliseconds the rest may be written, null when nothing is left. */
  async write(parts: StatusParts): Promise<number | null> {
    const status = this.#compose(parts);
    const text = JSON.stringify(status);
    if (text === this.#writtenText || same(status, this.#written)) {
      this.#writtenText = text;
      this.#newSinceMs = null;
      return null;
    }
    const nowMs = this.#clock.monotonic();
    this.#newSinceMs ??= nowMs;
    const waitMs = this.#newSinceMs + COUNTS_EVERY_MS - nowMs;
    if (waitMs > 0 && !turned(status, this.#written)) return waitMs;
    const { namespace, name, uid } = this.#ref;
    // Another object of the same name has a status of its own.
    const patch = { metadata: { uid }, status: withRemovals(status, this.#written) };
    try {
      await this.#points.run("reconcile.write-status", {}, () =>
        this.#kube.patch(ENVIRONMENTS, { namespace, name }, patch, { type: "merge", subresource: "status" }),
      );
    } catch (error) {
      if (isNotFound(error)) return null;
      // Another object of that name is soon seen here, too; a conflict that stays is a failure.
      if (isConflict(error)) this.#conflicts += 1;
      if (isConflict(error) && this.#conflicts <= CONFLICTS_IGNORED) return null;
      throw error;
    }
    this.#conflicts = 0;
    this.#tell(status, this.#written);
    this.#written = status;
    this.#writtenText = text;
    this.#newSinceMs = null;
    return null;
  }

  #compose(parts: StatusParts): EnvironmentStatus {
    const nowIso = new Date(this.#clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
    let conditions: Condition[] = [...(this.#written?.conditions ?? [])];
    for (const update of parts.conditions) conditions = setCondition(conditions, update, nowIso);
    const apiAddresses = parts.apiAddresses ?? this.#written?.apiAddresses;
    return {
      observedGeneration: parts.generation,
      mode: parts.mode,
      max: parts.max,
      conditions,
      ...(apiAddresses ? { apiAddresses: [...apiAddresses] } : {}),
      ...(parts.queue ? { queue: parts.queue } : this.#written?.queue ? { queue: this.#written.queue } : {}),
      ...(parts.sessions ? { sessions: parts.sessions } : {}),
      ...(parts.workers ? { workers: parts.workers } : {}),
      ...workspacesOf(parts.workspaces ?? this.#written?.workspaces),
    };
  }

  /** An Event for every condition that turned, but not for what is good from the start. */
  #tell(status: EnvironmentStatus, before: EnvironmentStatus | null): void {
    for (const condition of status.conditions ?? []) {
      const old = before?.conditions?.find(({ type }) => type === condition.type);
      if (old?.reason === condition.reason) continue;
      // Ready repeats what another condition says already, and has its own to say at times.
      if (isReady(condition) && !(isOwn(condition) && (!isGood(condition) || !old || isOwn(old)))) continue;
      if (this.#isNews(condition, old)) this.#announce(condition.reason as ConditionReason, condition.message);
    }
  }

  #isNews(condition: Condition, old: Condition | undefined): boolean {
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

function isReady({ type }: Pick<Condition, "type">): boolean {
  return type === "Ready";
}

/** A reason of `Ready` that no other condition has. */
function isOwn({ reason }: Condition): boolean {
  return Object.hasOwn(REASONS, reason) && REASONS[reason as ConditionReason].type === "Ready";
}

/** Also a good status can deserve a look, as AcceptedWithWarning does. */
function isWarning({ reason }: Condition): boolean {
  return Object.hasOwn(REASONS, reason) && eventType(reason as ConditionReason) === "Warning";
}

/**
 * Whether something changed that a person would act on: a condition's status or its reason, or the generation; or what
 * claims wait for. One good reason in the place of another (AtMaximum, Available) is none: at the edge of its maximum an
 * Environment turns all day.
 */
function turned(status: EnvironmentStatus, before: EnvironmentStatus | null): boolean {
  const essence = (of: EnvironmentStatus | null) =>
    JSON.stringify([
      of?.observedGeneration,
      of?.apiAddresses,
      (of?.conditions ?? []).map((condition) => [
        condition.type,
        condition.status,
        isGood(condition) && !isWarning(condition) ? "" : condition.reason,
      ]),
    ]);
  return essence(status) !== essence(before);
}

function same(a: EnvironmentStatus, b: EnvironmentStatus | null): boolean {
  return b !== null && JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
}

/** JSON with its fields in one order: what the API server gives back is ordered otherwise. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, part]) => [key, sorted(part)]),
  );
}

/** A merge patch keeps what it does not name: what is gone must be said. */
function withRemovals(status: EnvironmentStatus, before: EnvironmentStatus | null): Record<string, unknown> {
  const patch: Record<string, unknown> = { ...removals(status, before ?? {}), ...status };
  if (status.queue && before?.queue) patch.queue = { ...removals(status.queue, before.queue), ...status.queue };
  return patch;
}

function removals(after: object, before: object): Record<string, null> {
  const gone = Object.keys(before).filter((key) => !Object.hasOwn(after, key));
  return Object.fromEntries(gone.map((key) => [key, null]));
}

const SHORTEST_MS = 25;
/** Loops report many small changes while sessions come and go: one look so much later sees them all at once. */
const LONGEST_MS = 250;
/** After so long without a look the next changes are news again. */
const QUIET_MS = 1_000;

/**
 * How soon an Environment is looked at again after its loops changed something: at once where that is rare, as when it was
 * just added and its queue answers for the first time, and ever later, up to four times a second, while it goes on.
 */
export class ReportPace {
  readonly #clock: Clock;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #restMs = SHORTEST_MS;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** It was looked at, whatever for. */
  looked(): void {
    const nowMs = this.#clock.monotonic();
    const isQuiet = nowMs - this.#lookedMs > QUIET_MS;
    this.#restMs = isQuiet ? SHORTEST_MS : Math.min(LONGEST_MS, 2 * this.#restMs);
    this.#lookedMs = nowMs;
  }

  /** How long a change has to wait for the next look, in milliseconds. */
  get delayMs(): number {
    return Math.max(0, this.#lookedMs + this.#restMs - this.#clock.monotonic());
  }
}
