import type { Clock, Timer } from "./clock.ts";

/** Lets loops wait for a change without polling. Each change wakes all current waiters. */
export class Notifier {
  #waiters = new Set<() => void>();

  /** Wakes all current waiters. */
  notify(): void {
    const woken = this.#waiters;
    this.#waiters = new Set();
    for (const wake of woken) wake();
  }

  /** Resolves at the next change, or when the signal aborts. Check your condition before and after the wait. */
  wait(signal?: AbortSignal): Promise<void> {
    return this.#wait(signal, () => null);
  }

  /** Resolves at the next change, after `delayMs` on this clock, or when the signal aborts. */
  waitAtMost(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
    return this.#wait(signal, (wake) => clock.setTimer(wake, delayMs));
  }

  #wait(signal: AbortSignal | undefined, arm: (wake: () => void) => Timer | null): Promise<void> {
    if (signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        timer?.cancel();
        this.#waiters.delete(wake);
        signal?.removeEventListener("abort", wake);
        resolve();
      };
      const timer = arm(wake);
      this.#waiters.add(wake);
      signal?.addEventListener("abort", wake, { once: true });
    });
  }

  /** Resolves when `ready` returns true, or when the signal aborts. Calls `ready` now and after every change. */
  async until(ready: () => boolean, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !ready()) await this.wait(signal);
  }
}
