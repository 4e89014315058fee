/** Resolves when the signal aborts. What waits for it so is kept for as long as the signal: not for each of many events. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
