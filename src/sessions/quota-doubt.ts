/** A quota that keeps refusing for so long is too small, even if it lets a Pod through now and then. */
const LONG_MS = 15_000;

/**
 * Whether a quota's refusal is to be told. A quota hears of a Pod's end a moment later than everybody else, so where it
 * has just the room that `maxConcurrent` takes, it refuses the successor of every session once, and takes it a little
 * later. What it refuses again after the pause is refused in earnest.
 */
export class QuotaDoubt {
  #doubted = false;
  #believed = false;
  /** The first refusal since all Pods that were wanted had been created. */
  #sinceMs: number | null = null;

  /** A creation was refused. `pausedUntilMs`: before, no other was to be tried; those of the same batch are no second word. */
  refused(nowMs: number, pausedUntilMs: number): boolean {
    this.#sinceMs ??= nowMs;
    if (this.#doubted && nowMs >= pausedUntilMs) this.#believed = true;
    if (nowMs - this.#sinceMs >= LONG_MS) this.#believed = true;
    this.#doubted = true;
    return this.#believed;
  }

  /** A Pod was created: there is room. */
  granted(): void {
    this.#doubted = false;
    this.#believed = false;
  }

  /** All Pods that are wanted were created. */
  satisfied(): void {
    this.#sinceMs = null;
  }
}
