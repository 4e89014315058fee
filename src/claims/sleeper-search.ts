import type { Clock } from "../core/clock.ts";

/** Between two polls of a search. */
const PAUSE_MS = 200;

/** The least time between the starts of two searches: each offer keeps its item from other clients for a while. */
const EVERY_MS = 15_000;

/**
 * Polls for the item of a session whose Pod sleeps, behind items that find no Pod. The queue offers the oldest items
 * again after a while, so polls that pause would never reach it. A search goes on until the item was reached, one item
 * came twice, or the queue offers no more.
 */
export class SleeperSearch {
  readonly #clock: Clock;
  readonly #isAwaited: () => boolean;
  /** When the current search began (monotonic), with the items that it has seen; null: there is none. */
  #current: { readonly sinceMs: number; readonly seen: Set<string> } | null = null;
  /** When the last search began. */
  #lastMs = Number.NEGATIVE_INFINITY;

  /** @param isAwaited whether the queue holds an item of a session whose Pod is ready for it */
  constructor(clock: Clock, isAwaited: () => boolean) {
    this.#clock = clock;
    this.#isAwaited = isAwaited;
  }

  /**
   * Begins a search if one is due, and ends one that has nothing to find. Returns how long to wait after an item that
   * found no Pod, in milliseconds; null: there is no search.
   */
  nextPauseMs(): number | null {
    const nowMs = this.#clock.monotonic();
    if (this.#current === null && nowMs < this.#lastMs + EVERY_MS) return null;
    if (!this.#isAwaited()) this.ended();
    else if (this.#current === null) {
      this.#current = { sinceMs: nowMs, seen: new Set() };
      this.#lastMs = nowMs;
    }
    return this.#current === null ? null : PAUSE_MS;
  }

  /** For how long the search has lasted, in milliseconds. No item should come again that was offered meanwhile. */
  get lastsMs(): number {
    return this.#current === null ? 0 : this.#clock.monotonic() - this.#current.sinceMs;
  }

  /** A poll returned an item that found no Pod. */
  passed(workId: string): void {
    if (this.#current?.seen.has(workId)) this.ended();
    else this.#current?.seen.add(workId);
  }

  /** The queue offers no more. */
  ended(): void {
    this.#current = null;
  }
}
