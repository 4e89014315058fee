/**
 * Sessions whose items the queue offers, with `workspace: PerSession`: each Pod is made for one of them. In memory alone: the
 * queue offers an item again until somebody acknowledges it.
 */
export class AwaitedSessions {
  /** Those that wait for a Pod, with when they began to (the API server's clock); the longest first. */
  readonly #waiting = new Map<string, number>();
  /** When an item of each was last offered, whether a Pod was there for it or not. */
  readonly #offeredMs = new Map<string, number>();
  readonly #sinceMs: number;

  /** @param sinceMs when offers were first looked for */
  constructor(sinceMs: number) {
    this.#sinceMs = sinceMs;
  }

  /** An item of this session is in the queue. */
  offered(sessionId: string, nowMs: number): void {
    this.#offeredMs.set(sessionId, nowMs);
    if (!this.#waiting.has(sessionId)) this.#waiting.set(sessionId, nowMs);
  }

  /** It got its Pod, or cannot get one for now: its next offer counts anew. */
  served(sessionId: string): void {
    this.#waiting.delete(sessionId);
  }

  /** Whether it waits, and an item of it was offered after this time. */
  has(sessionId: string, sinceMs: number): boolean {
    return this.#waiting.has(sessionId) && this.lastOfferedMs(sessionId) >= sinceMs;
  }

  /** When an item of it was last offered; of one that an earlier process knew of, since when that could be seen here. */
  lastOfferedMs(sessionId: string): number {
    return this.#offeredMs.get(sessionId) ?? this.#sinceMs;
  }

  /** Those that wait and were offered after this time, the longest awaited first. Forgets all that were not. */
  since(ms: number): string[] {
    for (const [sessionId, offeredMs] of this.#offeredMs) {
      if (offeredMs >= ms) continue;
      this.#offeredMs.delete(sessionId);
      this.#waiting.delete(sessionId);
    }
    return [...this.#waiting.keys()];
  }
}
