import { type Condition, type ConditionUpdate, type eventType, isGood, setCondition } from "../api/conditions.ts";
import type { EnvironmentStatus } from "../api/environment.ts";
import type { Clock } from "../core/clock.ts";
import type { KubeClient } from "../kube/client.ts";
import { isNotFound } from "../kube/errors.ts";
import type { Announce } from "../sessions/context.ts";
import { ENVIRONMENTS } from "../sessions/environment-hold.ts";

/** Counts and wordings are written at most so often; a condition that turns is written at once. */
export const COUNTS_EVERY_MS = 5_000;

/** What a status is made of. */
export interface StatusParts {
  readonly generation: number;
  readonly mode: "Sessions" | "Workers";
  readonly max: number;
  readonly conditions: readonly ConditionUpdate[];
  readonly queue: EnvironmentStatus["queue"] | null;
  readonly sessions: EnvironmentStatus["sessions"] | null;
}

/**
 * Writes the status of one Environment: one merge patch, when something that a person would act on changed, and counts
 * at a bounded pace; never by the clock. A turned condition is an Event too, once.
 */
export class StatusWriter {
  readonly #kube: KubeClient;
  readonly #ref: { namespace: string; name: string };
  readonly #clock: Clock;
  readonly #announce: Announce;
  #written: EnvironmentStatus | null;
  #writtenMs = Number.NEGATIVE_INFINITY;

  constructor(options: {
    kube: KubeClient;
    ref: { namespace: string; name: string };
    clock: Clock;
    announce: Announce;
    /** The status as it was found. */
    found: EnvironmentStatus | undefined;
  }) {
    this.#kube = options.kube;
    this.#ref = options.ref;
    this.#clock = options.clock;
    this.#announce = options.announce;
    this.#written = options.found ?? null;
  }

  /** Writes what is new. Returns in how many milliseconds the rest may be written, null when nothing is left. */
  async write(parts: StatusParts): Promise<number | null> {
    const status = this.#compose(parts);
    if (same(status, this.#written)) return null;
    const sinceMs = this.#clock.monotonic() - this.#writtenMs;
    if (!turned(status, this.#written) && sinceMs < COUNTS_EVERY_MS) return COUNTS_EVERY_MS - sinceMs;
    try {
      await this.#kube.patch(
        ENVIRONMENTS,
        this.#ref,
        { status: withRemovals(status, this.#written) },
        { type: "merge", subresource: "status" },
      );
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
    this.#tell(status, this.#written);
    this.#written = status;
    this.#writtenMs = this.#clock.monotonic();
    return null;
  }

  #compose(parts: StatusParts): EnvironmentStatus {
    const nowIso = new Date(this.#clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
    let conditions: Condition[] = [...(this.#written?.conditions ?? [])];
    for (const update of parts.conditions) conditions = setCondition(conditions, update, nowIso);
    return {
      observedGeneration: parts.generation,
      mode: parts.mode,
      max: parts.max,
      conditions,
      ...(parts.queue ? { queue: parts.queue } : this.#written?.queue ? { queue: this.#written.queue } : {}),
      ...(parts.sessions ? { sessions: parts.sessions } : {}),
    };
  }

  /** An Event for every condition that turned, but not for what is good from the start. */
  #tell(status: EnvironmentStatus, before: EnvironmentStatus | null): void {
    for (const condition of status.conditions ?? []) {
      // Ready repeats what another condition says already.
      if (condition.type === "Ready") continue;
      const old = before?.conditions?.find(({ type }) => type === condition.type);
      if (old?.reason === condition.reason || condition.status === "Unknown") continue;
      if (isGood(condition) && (!old || isGood(old) || old.status === "Unknown")) continue;
      const reason = condition.reason as Parameters<typeof eventType>[0];
      this.#announce(reason, condition.message);
    }
  }
}

/** Whether something changed that a person would act on: a condition's status or reason, or the generation. */
function turned(status: EnvironmentStatus, before: EnvironmentStatus | null): boolean {
  const essence = (of: EnvironmentStatus | null) =>
    JSON.stringify([
      of?.observedGeneration,
      (of?.conditions ?? []).map(({ type, status: value, reason }) => [type, value, reason]),
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
  const patch: Record<string, unknown> = { ...status };
  if (status.queue && before?.queue) {
    const gone = Object.keys(before.queue).filter((key) => !Object.hasOwn(status.queue ?? {}, key));
    patch.queue = { ...status.queue, ...Object.fromEntries(gone.map((key) => [key, null])) };
  }
  return patch;
}
