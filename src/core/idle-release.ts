import type { Clock, Timer } from "./clock.ts";

/** A finalizer, as far as letting go of it goes. */
export interface Held {
  /** False: it is known to be gone. */
  readonly mayBeHeld: boolean;
  /** Takes it away if `unused` still says so when the turn comes. */
  release(unused: () => boolean): Promise<void>;
}

/**
 * Takes the finalizer off an object that has been idle for a while, so that it can be deleted with no operator running. Not
 * at once: work that comes after a short pause would cost two writes.
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
    /** What an earlier process left is known, and nothing is there that the finalizer is for. */
    isIdle: () => boolean;
    /** It is tried again after as long. */
    onFailure: (error: unknown) => void;
  }) {
    this.#clock = options.clock;
    this.#lingerMs = options.lingerMs;
    this.#hold = options.hold;
    this.#isIdle = options.isIdle;
    this.#onFailure = options.onFailure;
  }

  /** Something changed: begins to wait, goes on waiting, or has nothing to wait for any more. */
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

  /** Nothing is released after this. */
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
    // Not removed, or put back meanwhile by work that is over again: once more after as long.
    this.noteChange();
  }
}
