/** Pods of an Environment that find no room. */
export interface WaitingForRoom {
  readonly names: readonly string[];
  /** How many Pods waiting work needs beside those that may still find room. If more wait, the others are warm Pods. */
  readonly lacking: number;
}

/**
 * How long waiting work lacks room before a sleeping Pod is deleted for it. Most items of sleeping sessions are claimed
 * within this time, and until then they look like work that needs a Pod.
 */
const YIELD_AFTER_MS = 5_000;

/** Decides how many sleeping Pods are deleted for Pods that find no room: one for each that waiting work lacks. */
export class Yielding {
  readonly #exists: (name: string) => boolean;
  /** The Pods that found no room when last asked. */
  #waiting: readonly string[] = [];
  /** Those of them for which a sleeping Pod went. */
  #yieldedTo: readonly string[] = [];
  /** Since when (monotonic) waiting work has lacked room; null: it does not. */
  #lackingSinceMs: number | null = null;

  /** @param exists whether a Pod of this name exists */
  constructor(exists: (name: string) => boolean) {
    this.#exists = exists;
  }

  /**
   * The number of sleeping Pods to delete now. `againAtMs`: when to ask again although nothing changed (monotonic);
   * null: not needed.
   */
  wanted({ names, lacking }: WaitingForRoom, nowMs: number): { count: number; againAtMs: number | null } {
    this.#yieldedTo = this.#stillYieldedTo(names);
    this.#waiting = names;
    const more = lacking - this.#yieldedTo.length;
    if (more <= 0) {
      this.#lackingSinceMs = null;
      return { count: 0, againAtMs: null };
    }
    this.#lackingSinceMs ??= nowMs;
    const yieldMs = this.#lackingSinceMs + YIELD_AFTER_MS;
    if (nowMs < yieldMs) return { count: 0, againAtMs: yieldMs };
    return { count: Math.min(more, names.length - this.#yieldedTo.length), againAtMs: null };
  }

  /** Sleeping Pods went for this many Pods. Each has one deleted at most: its room may be elsewhere. */
  yielded(count: number): void {
    const others = this.#waiting.filter((name) => !this.#yieldedTo.includes(name));
    this.#yieldedTo = [...this.#yieldedTo, ...others.slice(0, count)];
  }

  /** @param names the Pods that find no room now */
  #stillYieldedTo(names: readonly string[]): string[] {
    const still = this.#yieldedTo.filter((name) => names.includes(name));
    const found = this.#waiting.filter((name) => !names.includes(name) && this.#exists(name));
    // The scheduler may have given the room to another waiting Pod.
    return still.slice(found.filter((name) => !this.#yieldedTo.includes(name)).length);
  }
}
