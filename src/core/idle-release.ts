import type { Clock, Timer } from "./clock.ts";

/** A finalizer that can be removed. */
export interface Held {
  /** False only when the finalizer is known to be gone. */
  readonly mayBeHeld: boolean;
  /** Removes the finalizer if `unused` still returns true when the write is about to be sent. */
  release(unused: () => boolean): Promise<void>;
}

export interface IdleReleaseOptions {
  readonly clock: Clock;
  readonly lingerMs: number;
  readonly hold: Held;
  /** True when the records of an earlier process are known and nothing needs the finalizer. */
  readonly isIdle: () => boolean;
  /** Called on each failed removal. The removal is retried after another `lingerMs`. */
  readonly onFailure: (error: unknown) => void;
}

/**
 * Removes the finalizer of an object that has been idle for a while, so that the object can be deleted when no operator
 * runs. It waits, because work that follows a short pause would otherwise cost two writes.
 */
export class IdleRelease {
  readonly #options: IdleReleaseOptions;
  #timer: Timer | null = null;
  #releasing = false;
  #ended = false;

  constructor(options: IdleReleaseOptions) {
    this.#options = options;
  }

  /** Reports a change: starts the wait, continues it, or cancels it when the object is no longer idle. */
  noteChange(): void {
    if (!this.#options.isIdle()) {
      this.#timer?.cancel();
      this.#timer = null;
      return;
    }
    if (this.#timer || this.#releasing || this.#ended || !this.#options.hold.mayBeHeld) return;
    this.#timer = this.#options.clock.setTimer(() => {
      this.#timer = null;
      void this.#release();
    }, this.#options.lingerMs);
  }

  /** Stops: nothing is released after this call. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  async #release(): Promise<void> {
    this.#releasing = true;
    try {
      await this.#options.hold.release(this.#options.isIdle);
    } catch (error) {
      this.#options.onFailure(error);
    }
    this.#releasing = false;
    // If the removal failed, or short work put the finalizer back meanwhile, wait again.
    this.noteChange();
  }
}
