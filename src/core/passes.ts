import { type Clock, sleep, type Timer } from "./clock.ts";

export interface PassesOptions {
  readonly clock: Clock;
  /**
   * One pass over the whole state. If it throws, the error goes to `failed` and the pass runs again after `retryMs`.
   */
  readonly pass: () => Promise<void>;
  readonly failed: (error: unknown) => void;
  readonly retryMs: number;
  /** Lower bound of the delay of `wakeAfter`. */
  readonly minWakeMs: number;
  /**
   * Pause after each pass, which gathers changes for the next pass; 0 by default. A function is called after each pass.
   */
  readonly restMs?: number | (() => number);
}

/**
 * Runs level-based work in passes, one at a time. All changes during a pass lead to one more pass. The earliest of
 * several wake-up times counts; a pass that runs too early changes nothing.
 */
export class Passes {
  readonly #options: PassesOptions;
  #signal: AbortSignal | null = null;
  #running: Promise<void> | null = null;
  #again = false;
  #timer: Timer | null = null;
  /** When the timer fires (monotonic). */
  #wakeAtMs = Number.POSITIVE_INFINITY;

  constructor(options: PassesOptions) {
    this.#options = options;
  }

  /** Enables passes and runs the first at once. None runs before this call, and none starts after the signal aborts. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#timer?.cancel(), { once: true });
    this.poke();
  }

  /** Whether new passes can start. */
  get active(): boolean {
    return this.#signal !== null && !this.#signal.aborted;
  }

  /** Requests a pass soon, because something changed. Never throws. */
  poke(): void {
    if (!this.active) return;
    this.#again = true;
    this.#running ??= this.#runUntilQuiet();
  }

  /** Requests a pass after a delay, even if nothing changes. An earlier wake-up time is kept. */
  wakeAfter(delayMs: number): void {
    if (!this.active) return;
    const { clock, minWakeMs } = this.#options;
    const waitMs = Math.max(minWakeMs, delayMs);
    const atMs = clock.monotonic() + waitMs;
    if (this.#wakeAtMs <= atMs) return;
    this.#timer?.cancel();
    this.#wakeAtMs = atMs;
    this.#timer = clock.setTimer(() => {
      this.#wakeAtMs = Number.POSITIVE_INFINITY;
      this.poke();
    }, waitMs);
  }

  /** Resolves when no pass is running. */
  async ended(): Promise<void> {
    await this.#running;
  }

  async #runUntilQuiet(): Promise<void> {
    // Several changes in one turn of the event loop lead to one pass.
    await Promise.resolve();
    while (this.#again && this.active) {
      this.#again = false;
      try {
        await this.#options.pass();
      } catch (error) {
        this.#options.failed(error);
        this.wakeAfter(this.#options.retryMs);
      }
      await this.#rest();
    }
    this.#running = null;
  }

  async #rest(): Promise<void> {
    const { restMs: rest = 0 } = this.#options;
    const restMs = typeof rest === "number" ? rest : rest();
    if (restMs > 0 && this.#signal) await sleep(this.#options.clock, restMs, this.#signal);
  }
}
