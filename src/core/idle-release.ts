import type { Clock, Timer } from "./clock.ts";

/** A finalizer that can be removed. */
export interface Held {
  /** False only when the finalizer is known to be gone. */
  readonly mayBeHeld: boolean;
  /** Removes the finalizer if `unused` still returns true when the write is about to be sent. */
  release(unused: () => boolean): Promise<void>;
}

/**
 * Removes the finalizer of an object that has been idle for a while, so that the object can be deleted when no operator
 * runs. It waits, because work that follows a short pause would otherwise cost two writes.
 */
export class IdleRelease {
  readonly #clock: Clock;
  readonly #lingerMs: number;
  readonly #hold: Held;
  readonly #isIdle: () => boolean;
  readonly #onFailure: (error: unknown) => void;
  #timer: Timer | null = null;
  #releasing = false;
  #ended = false;

  constructor(options: {
    clock: Clock;
    lingerMs: number;
    hold: Held;
    /** True when the records of an earlier process are known and nothing needs the finalizer. */
    isIdle: () => boolean;
    /** Called on each failed removal. The removal is retried after another `lingerMs`. */
    onFailure: (error: unknown) => void;
  }) {
    this.#clock = options.clock;
    this.#lingerMs = options.lingerMs;
    this.#hold = options.hold;
    this.#isIdle = options.isIdle;
    this.#onFailure = options.onFailure;
  }

  /** Reports a change: starts the wait, continues it, or cancels it when the object is no longer idle. */
  noteChange(): void {
    if (!this.#isIdle()) {
      this.#timer?.cancel();
      this.#timer = null;
      return;
    }
    if (this.#timer || this.#releasing || this.#ended || !this.#hold.mayBeHeld) return;
    this.#timer = this.#clock.setTimer(() => {
      this.#timer = null;
      void this.#release();
    }, this.#lingerMs);
  }

  /** Stops: nothing is released after this call. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  async #release(): Promise<void> {
    this.#releasing = true;
    try {
      await this.#hold.release(this.#isIdle);
    } catch (error) {
      this.#onFailure(error);
    }
    this.#releasing = false;
    // If the removal failed, or short work put the finalizer back meanwhile, wait again.
    this.noteChange();
  }
}
