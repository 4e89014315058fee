import type { SessionShown } from "./shown.ts";

/** Limits on the ended sessions that are kept. */
export interface EndedBounds {
  readonly perEnvironment: number;
  /** For any number of Environments; each session takes about 0.5 kB. */
  readonly inAll: number;
}

export const ENDED_BOUNDS: EndedBounds = { perEnvironment: 200, inAll: 5_000 };

/** The most recently ended sessions, limited per Environment and in total. The oldest is dropped first. */
export class EndedSessions {
  readonly #bounds: EndedBounds;
  /** Oldest first. */
  readonly #all = new Map<string, SessionShown>();
  readonly #byEnvironment = new Map<string, Set<string>>();

  constructor(bounds: EndedBounds = ENDED_BOUNDS) {
    this.#bounds = bounds;
  }

  add(session: SessionShown): void {
    const { id, environment } = session;
    this.#remove(id);
    this.#all.set(id, session);
    const own = this.#byEnvironment.get(environment) ?? new Set();
    this.#byEnvironment.set(environment, own.add(id));
    if (own.size > this.#bounds.perEnvironment) this.#remove(first(own));
    if (this.#all.size > this.#bounds.inAll) this.#remove(first(this.#all.keys()));
  }

  get(id: string): SessionShown | undefined {
    return this.#all.get(id);
  }

  forget(environment: string): void {
    for (const id of this.#byEnvironment.get(environment) ?? []) this.#all.delete(id);
    this.#byEnvironment.delete(environment);
  }

  [Symbol.iterator](): IterableIterator<SessionShown> {
    return this.#all.values();
  }

  #remove(id: string | undefined): void {
    const known = id === undefined ? undefined : this.#all.get(id);
    if (id === undefined || known === undefined) return;
    this.#all.delete(id);
    this.#byEnvironment.get(known.environment)?.delete(id);
  }
}

function first(ids: Iterable<string>): string | undefined {
  const [id] = ids;
  return id;
}
