/**
 * Time is a parameter: everything that reads a clock or waits takes a `Clock`, so that tests step time by hand
 * and no rule about seconds is ever tested by sleeping.
 */
export interface Clock {
  /** Wall-clock time in milliseconds since the epoch. May jump; use it only for what other machines compare. */
  now(): number;
  /** Milliseconds on a clock that never goes back. Use it for durations and deadlines inside this process. */
  monotonic(): number;
  /** Calls `fn` once after `delayMs`. The timer does not keep the process alive. */
  setTimer(fn: () => void, delayMs: number): Timer;
}

export interface Timer {
  /** Idempotent; after it the callback does not run. */
  cancel(): void;
}

export const SECOND_MS = 1_000;

/** setTimeout overflows at 2^31 ms and fires at once: longer waits are cut to this and re-armed by the caller. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimer(fn, delayMs) {
    const handle = setTimeout(fn, Math.min(Math.max(0, delayMs), MAX_TIMER_MS));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};

/** Keeps the process from ending by itself until disposed: neither timers of `realClock` nor idle connections do. */
export function keepAlive(): Disposable {
  const handle = setInterval(() => {}, MAX_TIMER_MS);
  return { [Symbol.dispose]: () => clearInterval(handle) };
}

/** Resolves once all that came in with this turn of the event loop was taken. No time passes in which nothing runs. */
export function endOfTurn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/**
 * Waits `delayMs`, or less when `signal` aborts.
 * @returns true when the whole time passed, false when it was cut short by the signal; never throws.
 */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<boolean> {
  if (signal?.aborted) return Promise.resolve(false);
  return new Promise((resolve) => {
    const timer = clock.setTimer(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve(true);
    }, delayMs);
    const onAbort = () => {
      timer.cancel();
      resolve(false);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** An AbortSignal that aborts after `delayMs` on this clock, or when `parent` does. Call `cancel` when done. */
export function deadlineSignal(
  clock: Clock,
  delayMs: number,
  parent?: AbortSignal,
): { signal: AbortSignal; cancel: () => void } {
  const controller = new AbortController();
  const onParent = () => controller.abort(parent?.reason);
  if (parent?.aborted) controller.abort(parent.reason);
  else parent?.addEventListener("abort", onParent, { once: true });
  const timer = clock.setTimer(
    () => controller.abort(new DOMException(`timed out after ${delayMs} ms`, "TimeoutError")),
    delayMs,
  );
  return {
    signal: controller.signal,
    cancel: () => {
      timer.cancel();
      parent?.removeEventListener("abort", onParent);
    },
  };
}

/** Resolves when the signal aborts. What waits for it so is kept for as long as the signal: not for each of many events. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
