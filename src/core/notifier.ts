/** Lets loops wait for "something changed" without polling: every change wakes all who wait at that moment. */
export class Notifier {
  #waiters = new Set<() => void>();

  /** Wakes everybody who waits now. */
  notify(): void {
    const woken = this.#waiters;
    this.#waiters = new Set();
    for (const wake of woken) wake();
  }

  /** Resolves at the next change, or when the signal aborts. Check what you wait for before and after. */
  wait(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiters.delete(wake);
        signal?.removeEventListener("abort", wake);
        resolve();
      };
      this.#waiters.add(wake);
      signal?.addEventListener("abort", wake, { once: true });
    });
  }

  /** Resolves when `ready` says true, asked now and after every change, or when the signal aborts. */
  async until(ready: () => boolean, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !ready()) await this.wait(signal);
  }
}
