import { type Clock, sleep, type Timer } from "./clock.ts";

export interface PassesOptions {
  readonly clock: Clock;
  /** One pass over what there is. What it throws goes to `failed`, and it runs again after `retryMs`. */
  readonly pass: () => Promise<void>;
  readonly failed: (error: unknown) => void;
  readonly retryMs: number;
  /** Passes by the clock follow one another no closer than this. */
  readonly minWakeMs: number;
  /** After each pass, so long nothing but what comes meanwhile is gathered for the next one; 0. Asked after each. */
  readonly restMs?: number | (() => number);
}

/**
 * Runs level-based work in passes: one at a time, as many changes as come meanwhile make one more, and of several times to
 * wake at the earliest counts: a pass that comes too early changes nothing.
 */
export class Passes {
  readonly #options: PassesOptions;
  #signal: AbortSignal | null = null;
  #running: Promise<void> | null = null;
  #again = false;
  #timer: Timer | null = null;
  /** When the timer runs (monotonic). */
  #wakeAtMs = Number.POSITIVE_INFINITY;

  constructor(options: PassesOptions) {
    this.#options = options;
  }

  /** No pass runs before this. The first one follows at once; none begins after the signal aborted. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#timer?.cancel(), { once: true });
    this.poke();
  }

  /** Whether passes begin any more. */
  get active(): boolean {
    return this.#signal !== null && !this.#signal.aborted;
  }

  /** Something changed: a pass soon. Never throws. */
  poke(): void {
    if (!this.active) return;
    this.#again = true;
    this.#running ??= this.#runUntilQuiet();
  }

  /** A pass after so long, though nothing changed. One that is to come earlier stays. */
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

  /** Resolves when no pass is under way. */
  async ended(): Promise<void> {
    await this.#running;
  }

  async #runUntilQuiet(): Promise<void> {
    // Several changes of one turn of the event loop make one pass.
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
