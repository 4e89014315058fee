import { monitorEventLoopDelay } from "node:perf_hooks";
import { realClock, sleep } from "../../../src/core/clock.ts";

/** A loop that runs later than this has enough to do: beats and polls of all worlds go through it. */
const LOOP_BUSY_MS = 100;
/** An API server that answers later than this as well: the bound of a claim's requests (1.5 s) must stay far away. */
const SERVER_BUSY_MS = 300;
const LOOK_MS = 1_000;
const NS_PER_MS = 1e6;
/** Of the delays since the last look, this share must be below the bound. */
const PERCENTILE = 90;

/**
 * Plays so many things at a time as this machine has the time for: one more begins only while the event loop answers
 * soon and so does the server, and at most `most` go on.
 * @param answers a request to that server
 * @returns how many went on at the same time, at most
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
      // What has just begun shows in the delay only a while later.
      await sleep(realClock, LOOK_MS);
    }
    await Promise.all(going);
    return peak;
  } finally {
    delay.disable();
  }
}

/** One that does not answer at all has more to do still: whether that is wrong is for the things that go on to say. */
async function isSlow(answers: () => Promise<unknown>): Promise<boolean> {
  const sentMs = realClock.monotonic();
  try {
    await answers();
  } catch {
    return true;
  }
  return realClock.monotonic() - sentMs > SERVER_BUSY_MS;
}
