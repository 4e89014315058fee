import { MemoryWorld } from "./memory-world.ts";

/** What many idle Environments cost in memory, including the simulated servers. */
export interface MemoryCost {
  readonly environments: number;
  /** The time from the start until all Environments were ready on the virtual clock, and the CPU time until then. */
  readonly readyMs: number;
  readonly readyCpuSeconds: number;
  /** The CPU time in a minute with nothing to do. */
  readonly idleCpuSeconds: number;
  readonly kubeRequests: number;
  readonly workCalls: number;
  /** Calls that the Work API rejected with 429: while all Environments start at once, and afterwards. */
  readonly refusedAtStart: number;
  readonly refused: number;
  readonly heapGrownBytes: number;
  /** The CPU time until all loops have ended. */
  readonly stopCpuSeconds: number;
}

/**
 * `memory-main.ts ENVIRONMENTS MINUTES SEED`, run with --expose-gc, prints a MemoryCost as JSON. Each size runs in its
 * own process.
 */
const [environments = 1, minutes = 1, seed = 1] = process.argv.slice(2).map(Number);
const MINUTE_MS = 60_000;
const PATIENCE_MS = 30 * MINUTE_MS;
const READY_STEP_MS = 1_000;

const world = new MemoryWorld(environments, seed);
const heapBefore = heapBytes();
world.start();
const startCpu = cpuSeconds();
const fromMs = world.clock.monotonic();
while (world.ready < environments) {
  if (world.clock.monotonic() > fromMs + PATIENCE_MS) throw new Error(`only ${world.ready} Environments became ready`);
  await world.pass(READY_STEP_MS);
}
const readyMs = world.clock.monotonic() - fromMs;
const readyCpuSeconds = cpuSeconds() - startCpu;
// Finalizer removal, late records, and first lists belong to the start.
await world.pass(2 * MINUTE_MS);
const refusedAtStart = world.refused;
world.kube.requests.clear();
world.work.requests.clear();
const idleCpu = cpuSeconds();
await world.pass(minutes * MINUTE_MS);
const idleCpuSeconds = (cpuSeconds() - idleCpu) / minutes;
const kubeRequests = sum(world.kube.requests) / minutes;
const workCalls = sum(world.work.requests) / minutes;
const heapGrownBytes = heapBytes() - heapBefore;
const stopCpu = cpuSeconds();
await world.stop();
const stopCpuSeconds = cpuSeconds() - stopCpu;
const refused = world.refused - refusedAtStart;
const cost: MemoryCost = {
  ...{ environments, readyMs, readyCpuSeconds, idleCpuSeconds, kubeRequests, workCalls },
  ...{ refusedAtStart, refused, heapGrownBytes, stopCpuSeconds },
};
process.stdout.write(`${JSON.stringify(cost)}\n`);
process.exit(0);

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function heapBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

function sum(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((total, count) => total + count, 0);
}
