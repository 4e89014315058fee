import { Backoff, type BackoffPolicy, type Random } from "./backoff.ts";
import { type Clock, sleep } from "./clock.ts";

/**
 * Runs a loop until the signal aborts, again and again. It should not throw; should it, by a fault of Berth's, that must end
 * neither the loops beside it nor the process: it is told, and begun anew after a backoff. Never throws.
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
