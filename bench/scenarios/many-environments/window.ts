import { setTimeout as pause } from "node:timers/promises";
import type { Simulator } from "../../../simulator/simulator.ts";
import type { OperatorProcess } from "../../../test/support/operator-process.ts";
import type { Inspector } from "../../soak/inspector.ts";
import { cpuSeconds as cpuSecondsOf, residentBytes } from "../../support/process-status.ts";
import { OwnRequests } from "../../support/requests.ts";
import type { Stand } from "../../support/stand.ts";

/** What an operator with nothing to do costs. */
export interface Cost {
  readonly environments: number;
  /** CPU time per minute, in seconds. */
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  /** JavaScript heap after a garbage collection. */
  readonly heapBytes: number;
  /** Per minute: reads and writes at the API server, without Leases and Events, and calls of the Work API. */
  readonly reads: number;
  readonly writes: number;
  readonly workCalls: number;
  /** Work API calls that were rejected with 429: until the operator became quiet, and during the measurement. */
  readonly refusedBefore: number;
  readonly refused: number;
  /** The size and duration of one scrape of /metrics. */
  readonly scrapeBytes: number;
  readonly scrapeMs: number;
}

const SECONDS_PER_MINUTE = 60;

/** Measures for `seconds` while nothing happens. */
export async function costOf(
  environments: number,
  seconds: number,
  on: {
    readonly stand: Stand;
    readonly simulator: Simulator;
    readonly operator: OperatorProcess;
    readonly inspector: Inspector;
  },
): Promise<Cost> {
  const { stand, simulator, operator, inspector } = on;
  const { audit } = stand.cluster;
  const mark = await audit.mark();
  const refusedBefore = refusedCalls(simulator);
  const callsBefore = workCalls(simulator);
  const cpuBefore = await cpuSecondsOf(operator.pid);
  await pause(seconds * 1_000);
  const cpuSeconds = (await cpuSecondsOf(operator.pid)) - cpuBefore;
  const calls = workCalls(simulator) - callsBefore;
  const own = await OwnRequests.since(audit, mark);
  const perMinute = (count: number) => (count / seconds) * SECONDS_PER_MINUTE;
  // Read the memory last, because reading it costs the operator CPU time.
  const rssBytes = await residentBytes(operator.pid);
  const scrape = await scrapeOf(operator);
  await inspector.collectGarbage();
  const memory = await inspector.evaluate<NodeJS.MemoryUsage>("process.memoryUsage()");
  return {
    environments,
    cpuSeconds: perMinute(cpuSeconds),
    rssBytes,
    heapBytes: memory.heapUsed,
    reads: perMinute(own.reads),
    writes: perMinute(own.total - own.reads),
    workCalls: perMinute(calls),
    refusedBefore,
    refused: refusedCalls(simulator) - refusedBefore,
    ...scrape,
  };
}

function workCalls(simulator: Simulator): number {
  return Object.values(simulator.report().requests).reduce((sum, count) => sum + count, 0);
}

/** Counts the calls with status 429. `report` counts by call and status. */
function refusedCalls(simulator: Simulator): number {
  return Object.entries(simulator.report().requests)
    .filter(([kind]) => kind.endsWith(" 429"))
    .reduce((sum, [, count]) => sum + count, 0);
}

async function scrapeOf({ addresses }: OperatorProcess) {
  const startMs = performance.now();
  const reply = await fetch(`http://${addresses.metrics}/metrics`);
  const { byteLength } = await reply.arrayBuffer();
  return { scrapeBytes: byteLength, scrapeMs: performance.now() - startMs };
}
