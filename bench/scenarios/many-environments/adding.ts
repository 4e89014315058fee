import type { Simulator } from "../../../simulator/simulator.ts";
import type { Crowd } from "./crowd.ts";

/** Times since the creation of an Environment, in milliseconds. */
export interface Added {
  readonly readyMs: number;
  /** The time to the first call of the Work API, which reads the queue's statistics, and to the first poll. */
  readonly firstCallMs: number;
  readonly firstPollMs: number;
}

const PATIENCE_MS = 120_000;

/** Adds Environments that keep one Pod warm, one at a time. Each is deleted before the next one is created. */
export async function addOneByOne(crowd: Crowd, simulator: Simulator, samples: number): Promise<Added[]> {
  const all: Added[] = [];
  for (let sample = 0; sample < samples; sample += 1) {
    const fromMs = performance.now();
    const wallFromMs = simulator.clock.now();
    const added = await crowd.make(1);
    const readyMs = (await crowd.ready(added)) - fromMs;
    const first = (call?: string) =>
      simulator.waitFor(
        () =>
          simulator
            .requests(added.environmentId)
            .find(
              (request) => request.environmentId === added.environmentId && (call ?? request.call) === request.call,
            ),
        { timeoutMs: PATIENCE_MS },
      );
    const firstCallMs = (await first()).at - wallFromMs;
    const firstPollMs = (await first("poll")).at - wallFromMs;
    all.push({ readyMs, firstCallMs, firstPollMs });
    await crowd.remove(added);
  }
  return all;
}
