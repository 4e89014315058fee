import { seededRandom } from "../simulator/ids.ts";
import { realClock, sleep } from "../src/core/clock.ts";
import type { DemoOptions } from "./options.ts";
import { firstMessage } from "./sessions.ts";
import type { Stage } from "./stage.ts";
import type { StagedEnvironment } from "./staged-environment.ts";
import type { Track } from "./track.ts";

/** Bursts for always-on workers arrive far enough apart that the scale-down between them is visible. */
const BURST_EVERY_MS = 20_000;
/** The idle state between bursts is worth showing too. */
const CALM_MS = 3_000;
/**
 * A burst is served within this time, including the start of its workers. A burst that starts later would outlast the
 * demo.
 */
const BURST_SERVED_MS = 12_000;
/** Long enough to see that a session sleeps. */
const AWAY_MS = 3_000;
const SECOND_MS = 1_000;

/**
 * Lets sessions arrive in every Environment.
 * @param arriveMs how long; undefined: until stopped
 * @returns a function that stops the arrivals
 */
export function startArrivals(stage: Stage, options: DemoOptions, arriveMs: number | undefined): () => void {
  const rate = options.rate / stage.environments.length;
  const ending = new AbortController();
  for (const [index, environment] of stage.environments.entries()) {
    const item = itemsFor(stage, environment, options, options.seed + index + 1);
    if (environment.mode === "workers")
      void arriveInBursts(stage, environment, burstsOf(rate), arriveMs, item, ending.signal);
    else arriveAtRandom(stage, environment, { rate, seed: options.seed, arriveMs }, item, ending.signal);
    stage.board.subscribe((event) => {
      if (event.type === "asleep" && event.track.environment === environment.name)
        void comeBack(stage, environment, event.track, ending.signal);
    });
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
  // The first session arrives at once, so that the display is not empty.
  simulator.enqueue(environmentId, item());
  const duration = arriveMs === undefined ? {} : { durationSeconds: arriveMs / SECOND_MS };
  const plan = { kind: "poisson", ratePerSecond: rate, seed, ...duration } as const;
  const handle = simulator.arrivals(environmentId, plan, item);
  signal.addEventListener("abort", () => handle.stop(), { once: true });
}

/** Sends the next message of a session that sleeps, if it has one. */
async function comeBack(
  { board, simulator }: Stage,
  { environmentId }: StagedEnvironment,
  track: Track,
  signal: AbortSignal,
): Promise<void> {
  if (!track.next) return;
  await sleep(realClock, AWAY_MS, signal);
  // Its Pod may have been deleted for another one.
  if (signal.aborted || !track.asleep) return;
  board.expect(environmentId, track.next);
  simulator.sendMessage(track.sessionId, track.next.script);
}

export interface Bursts {
  readonly size: number;
  /** The minimum time between two bursts. */
  readonly everyMs: number;
}

/** Bursts of whole sessions that average `rate` sessions a second. */
export function burstsOf(rate: number): Bursts {
  const size = Math.max(1, Math.round((rate * BURST_EVERY_MS) / SECOND_MS));
  return { size, everyMs: Math.max(BURST_EVERY_MS, (size / rate) * SECOND_MS) };
}

/**
 * Sends one burst after another. A burst waits until the workers of the last one have ended, so that the scale-down is
 * always visible.
 */
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

/** Whether a burst at this time can be served before the end. */
export function isTimely(atMs: number, arriveMs: number | undefined): boolean {
  return arriveMs === undefined || atMs + BURST_SERVED_MS <= arriveMs;
}

function itemsFor(stage: Stage, { environmentId, mode }: StagedEnvironment, { scripted }: DemoOptions, seed: number) {
  const random = seededRandom(seed);
  // Also a short run shows a session that comes back. With always-on workers, sessions have no Pod to come back to.
  let comesBack = mode === "sessions";
  return () => {
    const message = firstMessage(random, scripted ? "played" : "stock", comesBack);
    comesBack = false;
    stage.board.expect(environmentId, message);
    return { script: message.script };
  };
}
