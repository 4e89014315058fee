import { seededRandom } from "../simulator/ids.ts";
import { realClock, sleep } from "../src/core/clock.ts";
import type { DemoOptions } from "./options.ts";
import { SCRIPTED_SESSION, sessionScript } from "./sessions.ts";
import type { Stage } from "./stage.ts";
import type { StagedEnvironment } from "./staged-environment.ts";

/** Bursts for always-on workers come so far apart that these are seen to go in between. */
const BURST_EVERY_MS = 20_000;
/** Nothing to do and nobody there is worth a look, too. */
const CALM_MS = 3_000;
/** A burst is served within such a time, the start of its workers included: a later one would outlast the demo. */
const BURST_SERVED_MS = 12_000;
const SECOND_MS = 1_000;

/** Lets sessions arrive in every Environment. @param arriveMs how long; undefined: until it is stopped. @returns what stops it. */
export function startArrivals(stage: Stage, options: DemoOptions, arriveMs: number | undefined): () => void {
  const rate = options.rate / stage.environments.length;
  const ending = new AbortController();
  for (const [index, environment] of stage.environments.entries()) {
    const item = itemsFor(stage, environment, options, options.seed + index + 1);
    if (environment.mode === "workers")
      void arriveInBursts(stage, environment, burstsOf(rate), arriveMs, item, ending.signal);
    else arriveAtRandom(stage, environment, { rate, seed: options.seed, arriveMs }, item, ending.signal);
  }
  return () => ending.abort();
}

type NextItem = ReturnType<typeof itemsFor>;

function arriveAtRandom(
  { simulator }: Stage,
  { environmentId }: StagedEnvironment,
  { rate, seed, arriveMs }: { rate: number; seed: number; arriveMs: number | undefined },
  item: NextItem,
  signal: AbortSignal,
): void {
  // The first one comes at once: nobody likes to look at nothing.
  simulator.enqueue(environmentId, item());
  const duration = arriveMs === undefined ? {} : { durationSeconds: arriveMs / SECOND_MS };
  const plan = { kind: "poisson", ratePerSecond: rate, seed, ...duration } as const;
  const handle = simulator.arrivals(environmentId, plan, item);
  signal.addEventListener("abort", () => handle.stop(), { once: true });
}

export interface Bursts {
  readonly size: number;
  /** From one to the next, at least. */
  readonly everyMs: number;
}

/** Whole sessions that come to `rate` a second, on average. */
export function burstsOf(rate: number): Bursts {
  const size = Math.max(1, Math.round((rate * BURST_EVERY_MS) / SECOND_MS));
  return { size, everyMs: Math.max(BURST_EVERY_MS, (size / rate) * SECOND_MS) };
}

/** One burst after the other. A late one waits until the workers of the last one have gone, so that this is always seen. */
async function arriveInBursts(
  stage: Stage,
  { environmentId, workers }: StagedEnvironment,
  { size, everyMs }: Bursts,
  arriveMs: number | undefined,
  item: NextItem,
  signal: AbortSignal,
): Promise<void> {
  const startedMs = performance.now();
  for (;;) {
    const burstMs = performance.now();
    for (let arrived = 0; arrived < size; arrived += 1) stage.simulator.enqueue(environmentId, item());
    await sleep(realClock, everyMs - CALM_MS, signal);
    await stage.until(() => workers?.isEmpty === true, Number.POSITIVE_INFINITY, signal);
    await sleep(realClock, Math.max(CALM_MS, burstMs + everyMs - performance.now()), signal);
    if (signal.aborted || !isTimely(performance.now() - startedMs, arriveMs)) return;
  }
}

/** Whether a burst at this time is served by the end that was asked for. */
export function isTimely(atMs: number, arriveMs: number | undefined): boolean {
  return arriveMs === undefined || atMs + BURST_SERVED_MS <= arriveMs;
}

function itemsFor(stage: Stage, { environmentId }: StagedEnvironment, { scripted }: DemoOptions, seed: number) {
  const random = seededRandom(seed);
  return () => {
    const script = scripted ? SCRIPTED_SESSION : sessionScript(random);
    stage.board.expect(environmentId, script);
    return { script };
  };
}
