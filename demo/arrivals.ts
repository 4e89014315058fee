import type { ArrivalsInput } from "../simulator/arrivals.ts";
import { seededRandom } from "../simulator/ids.ts";
import type { DemoOptions } from "./options.ts";
import { SCRIPTED_SESSION, sessionScript } from "./sessions.ts";
import type { Stage } from "./stage.ts";
import type { StagedEnvironment } from "./staged-environment.ts";

/** Bursts for always-on workers come so far apart that these are seen to go in between. */
const BURST_EVERY_MS = 20_000;
/** A burst is served within such a time, the start of its workers included: later ones would outlast the demo. */
const BURST_SERVED_MS = 12_000;
const SECOND_MS = 1_000;

/** Lets sessions arrive in every Environment. @param arriveMs how long; undefined: until it is stopped. @returns what stops it. */
export function startArrivals(stage: Stage, options: DemoOptions, arriveMs: number | undefined): () => void {
  const rate = options.rate / stage.environments.length;
  const handles = stage.environments.map((environment, index) => {
    const item = itemsFor(stage, environment, options, options.seed + index + 1);
    if (environment.mode === "workers") {
      return stage.simulator.arrivals(environment.environmentId, burstPlan(rate, arriveMs), item);
    }
    // The first one comes at once: nobody likes to look at nothing.
    stage.simulator.enqueue(environment.environmentId, item());
    const duration = arriveMs === undefined ? {} : { durationSeconds: arriveMs / SECOND_MS };
    return stage.simulator.arrivals(
      environment.environmentId,
      { kind: "poisson", ratePerSecond: rate, seed: options.seed, ...duration },
      item,
    );
  });
  return () => {
    for (const handle of handles) handle.stop();
  };
}

/** Whole bursts that come to `rate` sessions a second, on average; one at least. */
export function burstPlan(rate: number, arriveMs: number | undefined): Extract<ArrivalsInput, { kind: "burst" }> {
  const size = Math.max(1, Math.round((rate * BURST_EVERY_MS) / SECOND_MS));
  const everyMs = Math.max(BURST_EVERY_MS, (size / rate) * SECOND_MS);
  const bursts =
    arriveMs === undefined
      ? Number.MAX_SAFE_INTEGER
      : 1 + Math.max(0, Math.floor((arriveMs - BURST_SERVED_MS) / everyMs));
  return { kind: "burst", size, bursts, everySeconds: everyMs / SECOND_MS };
}

function itemsFor(stage: Stage, { environmentId }: StagedEnvironment, { scripted }: DemoOptions, seed: number) {
  const random = seededRandom(seed);
  return () => {
    const script = scripted ? SCRIPTED_SESSION : sessionScript(random);
    stage.board.expect(environmentId, script);
    return { script };
  };
}
