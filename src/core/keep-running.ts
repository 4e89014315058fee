import { Backoff, type BackoffPolicy, type Random } from "./backoff.ts";
import { type Clock, sleep } from "./clock.ts";

/**
 * Runs a loop again and again until the signal aborts. If a bug makes the loop throw, the error goes to `onError` and
 * the loop restarts after a backoff, so the bug ends neither other loops nor the process. Never throws.
 */
export async function keepRunning(
  loop: () => Promise<void>,
  around: {
    readonly clock: Clock;
    readonly random: Random;
    readonly backoff: BackoffPolicy;
    readonly onError: (error: unknown) => void;
  },
  signal: AbortSignal,
): Promise<void> {
  const backoff = new Backoff(around.backoff, around.random);
  while (!signal.aborted) {
    try {
      await loop();
    } catch (error) {
      around.onError(error);
      await sleep(around.clock, backoff.next(), signal);
    }
  }
}
