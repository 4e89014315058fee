/** Steps a virtual clock while a test waits for answers of real sockets. */
import { setTimeout as realDelay } from "node:timers/promises";
import type { VirtualClock } from "../support/virtual-clock.ts";

/**
 * Steps the clock until `condition` holds, with real time for sockets in between. Only the test's timeout bounds it.
 */
export async function until(clock: VirtualClock, condition: () => boolean, stepMs = 50): Promise<void> {
  while (!condition()) {
    await clock.advance(stepMs);
    await realDelay(1);
  }
}

/** Steps the clock until a promise has settled that depends on answers from a real socket. */
export async function settled<T>(clock: VirtualClock, work: Promise<T>, stepMs = 50): Promise<T> {
  let done = false;
  const mark = () => {
    done = true;
  };
  work.then(mark, mark);
  await until(clock, () => done, stepMs);
  return work;
}
