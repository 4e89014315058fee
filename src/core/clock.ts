/**
 * Time is a parameter: everything that reads a clock or waits takes a `Clock`. Tests step time by hand, and no test of
 * a rule about seconds sleeps.
 */
export interface Clock {
  /** Wall-clock time in milliseconds since the epoch. May jump; use it only for what other machines compare. */
  now(): number;
  /** Monotonic time in milliseconds. Use it for durations and deadlines inside this process. */
  monotonic(): number;
  /** Calls `fn` once after `delayMs`. The timer does not keep the process alive. */
  setTimer(fn: () => void, delayMs: number): Timer;
}

export interface Timer {
  /** Idempotent. The callback does not run after this call. */
  cancel(): void;
}

export const SECOND_MS = 1_000;

/** setTimeout overflows at 2^31 ms and fires at once. Longer waits are cut, and the caller sets them again. */
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

/** Keeps the process alive until disposed: timers of `realClock` and idle connections do not. */
export function keepAlive(): Disposable {
  const handle = setInterval(() => {}, MAX_TIMER_MS);
  return { [Symbol.dispose]: () => clearInterval(handle) };
}

/** Resolves after the event loop has delivered all events of this turn. The process does not idle meanwhile. */
export function endOfTurn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/**
 * Waits `delayMs`, or less when `signal` aborts. Never throws.
 * @returns true when the whole time passed, false when the signal cut it short.
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

/** Returns an AbortSignal that aborts after `delayMs` on this clock, or when `parent` does. Call `cancel` when done. */
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

/** Resolves when the signal aborts. The listener lives as long as the signal, so do not call this once per event. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
