import { monitorEventLoopDelay } from "node:perf_hooks";
import { realClock, sleep } from "../../../src/core/clock.ts";

/** An event loop with a higher delay is busy: the heartbeats and polls of all worlds run on it. */
const LOOP_BUSY_MS = 100;
/**
 * An API server that answers later than this is busy too. The limit of a claim's requests (1.5 s) must stay far away.
 */
const SERVER_BUSY_MS = 300;
const LOOK_MS = 1_000;
const NS_PER_MS = 1e6;
/** This percentage of the delays since the last check must be below the limit. */
const PERCENTILE = 90;

/**
 * Plays as many things concurrently as this machine can handle, at most `most`. Another one starts only while the event
 * loop and the server answer quickly.
 * @param answers sends a request to that server
 * @returns the peak concurrency
 */
export async function inTurns(
  count: number,
  { most, answers }: { most: number; answers: () => Promise<unknown> },
  play: (index: number) => Promise<void>,
): Promise<number> {
  const delay = monitorEventLoopDelay();
  delay.enable();
  const going = new Set<Promise<void>>();
  let peak = 0;
  try {
    for (let index = 0; index < count; index += 1) {
      while (going.size >= most) await Promise.race(going);
      while (going.size > 0 && (delay.percentile(PERCENTILE) > LOOP_BUSY_MS * NS_PER_MS || (await isSlow(answers)))) {
        delay.reset();
        await sleep(realClock, LOOK_MS);
      }
      delay.reset();
      const one = play(index).finally(() => going.delete(one));
      going.add(one);
      peak = Math.max(peak, going.size);
      // The delay shows the load of a new one only after a while.
      await sleep(realClock, LOOK_MS);
    }
    await Promise.all(going);
    return peak;
  } finally {
    delay.disable();
  }
}

/** A server that does not answer at all is also busy. The played things themselves decide whether that is an error. */
async function isSlow(answers: () => Promise<unknown>): Promise<boolean> {
  const sentMs = realClock.monotonic();
  try {
    await answers();
  } catch {
    return true;
  }
  return realClock.monotonic() - sentMs > SERVER_BUSY_MS;
}
