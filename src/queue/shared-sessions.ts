import { type Environment, queueOf } from "../api/environment.ts";
import type { Clock } from "../core/clock.ts";

/**
 * After a restart, an Environment that can't say yet which sessions it runs holds up the others with its environmentId
 * for this long. Listing Secrets takes a second or two; starting a thousand Environments takes longer.
 */
export const PATIENCE_MS = 30_000;

/** What the session loops of one Environment tell Environments with the same environmentId. */
export interface Sharer {
  readonly context: {
    readonly namespace: string;
    readonly name: string;
    readonly environment: () => Environment;
    readonly environmentKey: () => string;
    readonly isKeyRead: () => boolean;
  };
  /** Whether the claims of earlier processes have been read. */
  readonly isRecovered: () => boolean;
  /** Whether the Work API has ever accepted its key; null: no answer yet. */
  readonly isAccepted: () => boolean | null;
  /** Whether a Pod of this Environment runs the session, or is about to. */
  readonly runs: (sessionId: string) => boolean;
}

/**
 * Keeps a session from running at once in two Environments of this process that have the same environmentId (invariant
 * 2).
 *
 * Anyone who can write Environments can name any environmentId, and can forge Pods and Secrets that name any session.
 * So another Environment counts only if it has the same key, or if the Work API accepted its key.
 */
export class SharedSessions {
  readonly #clock: Clock;
  readonly #served: (environmentId: string) => readonly string[];
  /** By environmentId. */
  readonly #sharers = new Map<string, Set<Sharer>>();
  #termBeganMs = Number.NEGATIVE_INFINITY;

  constructor(options: {
    clock: Clock;
    /** Environments in `sessions` mode with this id that this process serves, or is about to, as `namespace/name`. */
    served: (environmentId: string) => readonly string[];
  }) {
    this.#clock = options.clock;
    this.#served = options.served;
  }

  /** This process begins to serve a shard. Another process may have left claims in the shard's Environments. */
  termBegins(): void {
    this.#termBeganMs = this.#clock.monotonic();
  }

  join(sharer: Sharer): void {
    const id = idOf(sharer);
    const known = this.#sharers.get(id);
    if (known) known.add(sharer);
    else this.#sharers.set(id, new Set([sharer]));
  }

  leave(sharer: Sharer): void {
    const id = idOf(sharer);
    const left = this.#sharers.get(id);
    left?.delete(sharer);
    if (left?.size === 0) this.#sharers.delete(id);
  }

  /** Whether another Environment runs this session, or might: after a restart, some have not read their claims yet. */
  mayRunElsewhere(own: Sharer, sessionId: string): boolean {
    const id = idOf(own);
    const others = [...(this.#sharers.get(id) ?? [])].filter((other) => other !== own);
    if (others.some((other) => isTrusted(other, own) && other.runs(sessionId))) return true;
    if (this.#clock.monotonic() >= this.#termBeganMs + PATIENCE_MS) return false;
    const known = new Set([own, ...others.filter((other) => isKnown(other, own))].map(nameOf));
    return this.#served(id).some((name) => !known.has(name));
  }
}

function isTrusted(other: Sharer, own: Sharer): boolean {
  const key = other.context.environmentKey();
  return (key !== "" && key === own.context.environmentKey()) || other.isAccepted() === true;
}

function isKnown(other: Sharer, own: Sharer): boolean {
  const { isKeyRead, environmentKey } = other.context;
  const hasNoKey = isKeyRead() && environmentKey() === "";
  return other.isRecovered() && (hasNoKey || isTrusted(other, own) || other.isAccepted() === false);
}

function idOf({ context }: Sharer): string {
  return queueOf(context.environment().spec) ?? "";
}

function nameOf({ context: { namespace, name } }: Sharer): string {
  return `${namespace}/${name}`;
}
