import type { ConditionUpdate } from "../api/conditions.ts";
import type { Clock } from "../core/clock.ts";
import type { SessionView } from "../protocol/session-view.ts";
import type { EnvironmentLook, EnvironmentObserver, EnvironmentSource } from "../reconcile/environment-runtime.ts";
import { type EndedBounds, EndedSessions } from "./ended-sessions.ts";
import {
  cut,
  type EnvironmentShown,
  environmentShown,
  type SessionShown,
  sessionShown,
  type Warning,
} from "./shown.ts";

/** The page shows the newest; `kubectl get events` has the others. */
export const WARNINGS_KEPT = 10;

type Fault = Pick<EnvironmentLook, "mode" | "max" | "conditions">;

interface Entry {
  source: EnvironmentSource | null;
  /** Why its spec can't be served. An earlier spec may still be running. */
  fault: Fault | null;
  /** Newest first. */
  warnings: readonly Warning[];
}

const NO_REPORT: EnvironmentLook["report"] = { queue: null, sessions: null, blocked: null };

/**
 * What this process serves, as reported by the reconcilers. Memory is bounded: live sessions are read from their
 * source, and only the last ended ones of each Environment are kept.
 */
export class Seen implements EnvironmentObserver {
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #ended: EndedSessions;

  constructor(clock: Clock, bounds?: EndedBounds) {
    this.#clock = clock;
    this.#ended = new EndedSessions(bounds);
  }

  serves(key: string, source: EnvironmentSource): void {
    this.#entryOf(key).source = source;
  }

  cannotServe(key: string, fault: Fault | null): void {
    if (fault !== null) this.#entryOf(key).fault = fault;
    const entry = this.#entries.get(key);
    if (fault !== null || !entry) return;
    entry.fault = null;
    this.#deleteIfUnused(key, entry);
  }

  gone(key: string, source: EnvironmentSource): void {
    const entry = this.#entries.get(key);
    if (entry?.source !== source) return;
    entry.source = null;
    this.#ended.forget(key);
    this.#deleteIfUnused(key, entry);
  }

  sessionEnded(key: string, session: SessionView): void {
    if (this.#entries.has(key)) this.#ended.add(sessionShown(key, session));
  }

  warned(key: string, reason: string, text: string): void {
    const entry = this.#entries.get(key);
    // Ignore a late warning of a removed Environment, which would be kept forever.
    if (!entry) return;
    const message = cut(text);
    const isSame = (known: Warning) => known.reason === reason && known.message === message;
    const times = 1 + (entry.warnings.find(isSame)?.times ?? 0);
    const others = entry.warnings.filter((known) => !isSame(known));
    entry.warnings = [{ reason, message, atMs: this.#clock.now(), times }, ...others].slice(0, WARNINGS_KEPT);
  }

  environments(): EnvironmentShown[] {
    return [...this.#entries].map(([key, { source, fault, warnings }]) => {
      const look = source?.look() ?? { mode: fault?.mode ?? "Sessions", max: fault?.max ?? 0, report: NO_REPORT };
      const conditions: readonly ConditionUpdate[] = fault?.conditions ?? ("conditions" in look ? look.conditions : []);
      return environmentShown(key, { ...look, conditions }, conditions, warnings);
    });
  }

  /** The live sessions, and the last ended ones. A session that sleeps continues the view of its last work item. */
  *sessions(): Iterable<SessionShown> {
    const asleep = new Set<string>();
    for (const [key, { source }] of this.#entries) {
      for (const session of source?.sessions() ?? []) {
        const shown = sessionShown(key, session);
        const { id, phase, sleepsUntilMs = null } = shown;
        if (phase === "sleeping") asleep.add(id);
        const ended = phase === "sleeping" ? this.#ended.get(id) : undefined;
        yield ended ? { ...ended, phase, sleepsUntilMs } : shown;
      }
    }
    for (const ended of this.#ended) if (!asleep.has(ended.id)) yield ended;
  }

  #entryOf(key: string): Entry {
    const known = this.#entries.get(key);
    if (known) return known;
    const entry: Entry = { source: null, fault: null, warnings: [] };
    this.#entries.set(key, entry);
    return entry;
  }

  #deleteIfUnused(key: string, { source, fault }: Entry): void {
    if (source === null && fault === null) this.#entries.delete(key);
  }
}
